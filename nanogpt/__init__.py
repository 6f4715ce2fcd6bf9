"""Turn a text into a trained GPT, reproducibly to the last byte.

This package is a library with a small command line. `Snakefile` has the workflow around it. Imports
are lazy here, so that `import nanogpt` and a dry run are fast.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanogpt.library import TrainedModel as TrainedModel
    from nanogpt.library import load as load

__version__ = "1.0.0"
__all__ = ["TrainedModel", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("TrainedModel", "load"):
        from nanogpt import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
