"""What a server of `nanogpt serve` shows, and what it allows."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from nanogpt.project import Project

# Names of this machine that others can't reach.
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Limits:
    """The most that a client can ask for.

    body_bytes: of a request other than an upload. upload_bytes: of a text. prompt_characters: of
    one prompt. prompt_tokens: of one prompt in tokens. echoed_scores: tokens of prompts times `n`
    of one request whose log probabilities are sent. new_tokens: of one completion. choices:
    prompts times `n` of one request. admitted: completions that are generated together. waiting:
    those that wait for that. address_bytes, header_bytes: of a request's head. connections: at the
    same time. head_seconds, body_seconds, upload_seconds: for receiving a request's parts.
    stall_seconds: without reading anything of a response. drain_seconds: for requests in progress
    when the server stops. jobs: trainings that run or wait to be started. logprobs: alternatives
    of each token. stops: stop strings of a request. stop_characters: of each. model_bytes: memory
    of loaded models.
    """

    body_bytes: int = 1 << 20
    upload_bytes: int = 256 << 20
    prompt_characters: int = 200_000
    prompt_tokens: int = 50_000
    echoed_scores: int = 32_768
    new_tokens: int = 4096
    choices: int = 16
    admitted: int = 256
    waiting: int = 256
    address_bytes: int = 8192
    header_bytes: int = 32_768
    connections: int = 512
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    upload_seconds: float = 900.0
    stall_seconds: float = 60.0
    drain_seconds: float = 30.0
    jobs: int = 8
    logprobs: int = 10
    stops: int = 16
    stop_characters: int = 200
    model_bytes: int = 4 << 30


@dataclass(frozen=True)
class Site:
    """The project and results that a server shows.

    hosts: names that a request's Host header may have, in lower case; empty: any. token: the secret
    that actions need; "" without actions. is_public: whether every request needs the token.
    """

    project: Project
    results: Path
    hosts: frozenset[str] = LOOPBACK
    token: str = ""
    allow_actions: bool = False
    is_public: bool = False
    limits: Limits = field(default_factory=Limits)

    @property
    def shows_own_results(self) -> bool:
        """Whether the results are the project's own."""
        return self.results.resolve() == self.project.results.resolve()


def site_of(request: Request) -> Site:
    """Return the site that a request is for; a dependency of FastAPI's endpoints."""
    site: Site = request.app.state.site
    return site


# A parameter of an endpoint.
SiteOf = Annotated[Site, Depends(site_of)]
