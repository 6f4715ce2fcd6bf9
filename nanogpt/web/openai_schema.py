"""The part of OpenAI's API that we answer: requests, errors, and lists of models.

answers.py and choices.py write answers with text, piece by piece.
"""

from typing import Annotated, Literal

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from nanogpt.config.messages import explain
from nanogpt.config.schema import SampleSettings
from nanogpt.errors import shorten
from nanogpt.web.site import Limits

# What a request gets that doesn't say otherwise, as at OpenAI. Its other settings are the run's.
OPENAI_DEFAULTS = {
    "max_new_tokens": 16,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "stop": [],
    "unknown": "error",
}
INVALID = "invalid_request_error"
RETRY_SECONDS = 1


class ApiError(Exception):
    """An answer with an error. param: the field of the request that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.kind, self.param, self.code = kind, param, code

    def response(self) -> JSONResponse:
        """Return the answer; it says when to try again if that can help."""
        body = ErrorBody(
            error=ErrorDetail(
                message=self.message, type=self.kind, param=self.param, code=self.code
            )
        )
        retry = self.status in (429, 503)
        headers = {"Retry-After": str(RETRY_SECONDS)} if retry else None
        return JSONResponse(body.model_dump(), self.status, headers)


class ErrorDetail(BaseModel):
    """What's wrong with a request."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of an answer with an error."""

    error: ErrorDetail


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = Field(False, description="send the number of tokens at the end")


# More than any limit of the server. Python can't write a number of thousands of digits.
LARGEST = 2**63 - 1
Token = Annotated[int, Field(ge=0, le=LARGEST)]
# Lists can have a megabyte. Without `fail_fast`, each wrong element makes an error in each branch.
Texts = Annotated[list[str], Field(fail_fast=True)]
Tokens = Annotated[list[Token], Field(fail_fast=True)]
PromptField = str | Texts | Tokens | Annotated[list[Tokens], Field(fail_fast=True)]
# A request with more fields is refused before each unknown one makes an error.
MOST_FIELDS = 100


class CompletionRequest(BaseModel):
    """The body of `POST /v1/completions`.

    The fields after `user` aren't OpenAI's; its Python client sends them with `extra_body`.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(description="name of a run")
    prompt: PromptField | None = Field(
        None, description="text or tokens to continue, or a list of them; empty: start a text"
    )
    max_tokens: int | None = Field(None, ge=0, le=LARGEST, description="length; without it, 16")
    temperature: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="without it, 1; 0: the most likely token"
    )
    top_p: float | None = Field(None, gt=0, le=1, description="without it, 1")
    n: int | None = Field(
        None, ge=1, le=LARGEST, description="choices for each prompt; choice i uses seed + i"
    )
    seed: int | None = Field(None, ge=0, lt=2**62, description="without it, a random one")
    stop: str | Texts | None = Field(None, description="texts that end a completion")
    stream: bool | None = Field(None, description="send the text while it's generated")
    stream_options: StreamOptions | None = None
    logprobs: int | None = Field(
        None,
        ge=0,
        le=LARGEST,
        description="log probabilities of each token and of this many likely ones",
    )
    echo: bool | None = Field(None, description="begin the text with the prompt")
    best_of: int | None = Field(None, description="not supported, unless it's n")
    suffix: str | None = Field(None, description="not supported")
    presence_penalty: float | None = Field(None, description="not supported, unless it's 0")
    frequency_penalty: float | None = Field(None, description="not supported, unless it's 0")
    logit_bias: dict[str, object] | None = Field(None, description="not supported")
    user: str | None = Field(None, description="ignored")
    top_k: int | None = Field(
        None,
        ge=0,
        le=LARGEST,
        description="choose from this many most likely tokens; without it, all",
    )
    min_p: float | None = Field(
        None, ge=0, le=1, description="least share of the most likely token's probability"
    )
    repetition_penalty: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="above 1: fewer repetitions"
    )
    unknown: Literal["error", "skip"] | None = Field(
        None, description="what to do with characters of a prompt that aren't in the vocabulary"
    )
    use_run_settings: bool = Field(
        False, description="use the run's own `sample` settings instead of OpenAI's defaults"
    )

    def prompts(self) -> list[str] | list[list[int]]:
        """Return all prompts, at least one."""
        prompt = self.prompt
        if prompt is None or prompt == []:
            return [""]
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt[0], int):
            return [prompt]
        return prompt

    def stops(self) -> list[str]:
        """Return the texts that end a completion."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    def sampling(self, own: SampleSettings) -> SampleSettings:
        """Return the settings of the first choice, but without a seed. own: those of the run."""
        base = own.model_copy(update={"start": "", "num_samples": 1})
        if not self.use_run_settings:
            base = base.model_copy(update=OPENAI_DEFAULTS)
        names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "unknown")
        given = {name: getattr(self, name) for name in names}
        given["stop"] = None if self.stop is None else self.stops()
        # The engine generates at least one token; a completion of none drops it.
        given["max_new_tokens"] = None if self.max_tokens is None else max(1, self.max_tokens)
        return base.model_copy(update={k: v for k, v in given.items() if v is not None})


# Fields with a value that changes nothing, and what to say about any other.
NEUTRAL: dict[str, tuple[object, str]] = {
    "suffix": ("", "these models only continue a text; leave it out"),
    "presence_penalty": (0, "not supported; use `repetition_penalty`, or leave it out"),
    "frequency_penalty": (0, "not supported; use `repetition_penalty`, or leave it out"),
    "logit_bias": ({}, "not supported; leave it out"),
}


def parse_request(body: bytes, limits: Limits) -> CompletionRequest:
    """Read the body of a request for completions.

    Errors: ApiError for anything that can't be answered.
    """
    try:
        content = from_json(body)
    except ValueError as error:
        raise ApiError(400, f"the request isn't JSON: {error}; correct it") from None
    if isinstance(content, dict) and len(content) > MOST_FIELDS:
        message = f"the request has {len(content):,} fields, at most {MOST_FIELDS}"
        raise ApiError(400, message)
    try:
        request = CompletionRequest.model_validate(content)
    except ValidationError as error:
        raise _invalid(error) from None
    for name, (neutral, advice) in NEUTRAL.items():
        value = getattr(request, name)
        if value is not None and value != neutral:
            raise ApiError(400, f"{name}: {advice}", param=name)
    if request.best_of is not None and request.best_of != (request.n or 1):
        raise ApiError(400, "best_of: not supported; leave it out", param="best_of")
    _check_limits(request, limits)
    return request


def _invalid(error: ValidationError) -> ApiError:
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0]) if first["loc"] else None
    param = field and shorten(field)
    if first["type"] == "missing":
        return ApiError(400, f"{param}: missing; add it", param=param)
    if param == "prompt":
        message = "prompt: should be a text, a list of texts, tokens, or a list of lists of tokens"
        return ApiError(400, message, param=param)
    if param == "stop":
        return ApiError(400, "stop: should be a text or a list of texts", param=param)
    if field is None or param is None:
        return ApiError(400, "the request isn't a JSON object; send one with `model` and `prompt`")
    message = explain(error, CompletionRequest).replace(field, param)
    return ApiError(400, message, param=param)


def check_limit(name: str, value: int, most: int, what: str) -> None:
    """Check a field's value, or a number of things that it asks for.

    Errors: ApiError if it's more than the limit.
    """
    if value > most:
        raise ApiError(400, f"{name}: {value:,} {what}, at most {most:,}", param=name)


def _check_limits(request: CompletionRequest, limits: Limits) -> None:
    """Check what a request asks for against the server's limits."""

    prompts = request.prompts()
    check_limit("n", len(prompts) * (request.n or 1), limits.choices, "choices with all prompts")
    for prompt in prompts:
        if isinstance(prompt, str):
            check_limit("prompt", len(prompt), limits.prompt_characters, "characters")
        else:
            check_limit("prompt", len(prompt), limits.prompt_tokens, "tokens")
    check_limit("max_tokens", request.max_tokens or 0, limits.new_tokens, "tokens")
    check_limit("logprobs", request.logprobs or 0, limits.logprobs, "alternatives of each token")
    stops = request.stops()
    check_limit("stop", len(stops), limits.stops, "texts")
    for stop in stops:
        check_limit("stop", len(stop), limits.stop_characters, "characters")
        if not stop:
            raise ApiError(400, "stop: an empty text; leave it out", param="stop")


class ModelObject(BaseModel):
    """A model in a list of models."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "nanogpt"


class ModelList(BaseModel):
    """The answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


class ModelDetails(ModelObject):
    """The answer of `GET /v1/models/{id}`. settings: those of the run's samples."""

    settings: SampleSettings
