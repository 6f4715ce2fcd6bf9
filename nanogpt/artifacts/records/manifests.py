"""Manifests and run.json: a stage's request and its results."""

from pydantic import Field

from nanogpt.artifacts.records.base import JsonObject, Record
from nanogpt.config.patterns import NAME


class Layout(Record):
    """The hardware and setup of a training from `first_step` on, which affect the last bits.

    matmul: the library for float32 products on a CPU; None on other devices and from old versions.
    ranks: the number of processes that trained the model. Their gradients are summed in one flat
    buffer or, if `sharded`, block by block.
    """

    first_step: int
    device: str
    threads: int
    torch: str
    cpu_capability: str
    gpu: str | None
    matmul: str | None = None
    ranks: int = 1
    sharded: bool = False


class Environment(Record):
    """The environment, which affects the last bits of a result without being requested.

    torch, cpu_capability and gpu are set if the stage uses torch, layouts if it trains.
    """

    nanogpt: str
    python: str
    platform: str
    cpu: str
    threads: int
    ranks: int
    torch: str | None = None
    cpu_capability: str | None = None
    gpu: str | None = None
    layouts: tuple[Layout, ...] = ()


class Request(Record):
    """A stage's request. version: the digest of the other fields.

    inputs: sha256 by path, in the rule's order. parameters: groups of settings. code: the digest of
    the stage's code.
    """

    stage: str
    version: str
    inputs: dict[str, str]
    parameters: JsonObject
    code: str


class Manifest(Request):
    """A stage's manifest. outputs: sha256 by path. summary: one line about the outputs."""

    summary: str = ""
    outputs: dict[str, str]
    environment: Environment
    wall_seconds: float


class CacheEntry(Manifest):
    """A manifest in the cache, with outputs by their names there. made_in: original directory."""

    made_in: str


class TrainingRequest(Request):
    """run.json: the request of an unfinished training.

    settings: the run's settings as in config.yaml, with unresolved devices.
    """

    run: str = Field(pattern=f"^{NAME.pattern}$")
    settings: JsonObject


class CodeFunctions(Record):
    """Digests of the functions in a stage's code, by module and function.

    code: the code digest, as in manifests.
    """

    code: str
    modules: dict[str, dict[str, str]]
