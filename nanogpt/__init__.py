"""Turn a text into a trained GPT that anyone can make again, byte for byte.

The package is a library with a small command line; the workflow around it stands in `Snakefile`.
Nothing is imported here, so that `import nanogpt` and a dry run of the workflow stay light.
"""

__version__ = "1.0.0.dev0"
