"""Turn a text into a trained GPT that anyone can make again, byte for byte.

The package is a library with a small command line; the workflow around it is in `Snakefile`.
Nothing is imported here before it's used, so that `import nanogpt` and a dry run stay light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanogpt.library import TrainedModel as TrainedModel
    from nanogpt.library import load as load

__version__ = "1.0.0.dev0"
__all__ = ["TrainedModel", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("TrainedModel", "load"):
        from nanogpt import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
