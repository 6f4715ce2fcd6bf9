"""Manifests and run.json: what a stage was asked for, and what came of it."""

from pydantic import Field

from nanogpt.artifacts.records.base import JsonObject, Record
from nanogpt.config.patterns import NAME


class Layout(Record):
    """Where a training was computed from `first_step` on: it decides the last bits.

    matmul: what computed float32 products on a CPU; None elsewhere, and in earlier versions. ranks:
    the processes that trained one model; their gradients were summed in one flat buffer,
    or if `sharded`, block by block.
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
    """What decides the last bits of a result without being requested.

    torch, cpu_capability and gpu are there if the stage computes with torch, layouts if it trains.
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
    """What a stage was asked for; its version is the digest of the rest.

    inputs: sha256 by path, in the rule's order. parameters: groups of settings. code: the digest of
    the stage's code.
    """

    stage: str
    version: str
    inputs: dict[str, str]
    parameters: JsonObject
    code: str


class Manifest(Request):
    """A stage's manifest. outputs: sha256 by path. summary: one line on what was made."""

    summary: str = ""
    outputs: dict[str, str]
    environment: Environment
    wall_seconds: float


class CacheEntry(Manifest):
    """A manifest in the cache, its outputs by their names there. made_in: where they come from."""

    made_in: str


class TrainingRequest(Request):
    """run.json: what an unfinished training was asked for.

    settings: of its run, as config.yaml gives them, with devices not resolved.
    """

    run: str = Field(pattern=f"^{NAME.pattern}$")
    settings: JsonObject


class CodeFunctions(Record):
    """The functions of the code that made a result, with a digest of each, by module.

    code: the digest of all of it, as a manifest has it.
    """

    code: str
    modules: dict[str, dict[str, str]]
