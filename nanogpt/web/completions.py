"""Completions and models, in the form of OpenAI's API: /v1/completions and /v1/models."""

import asyncio
import logging
import time

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from nanogpt.errors import UserError, shorten, user_message
from nanogpt.inference.prompts import default_prompt, encode_prompt
from nanogpt.web.answers import Completion, CompletionResponse
from nanogpt.web.choices import EchoedPrompt
from nanogpt.web.generating import BusyError
from nanogpt.web.meters import Meters
from nanogpt.web.model_files import created_of
from nanogpt.web.models import LoadedModel, Models, UnavailableError, UnknownModelError
from nanogpt.web.openai_schema import (
    ApiError,
    CompletionRequest,
    ErrorBody,
    ModelDetails,
    ModelList,
    ModelObject,
    check_limit,
    parse_request,
)
from nanogpt.web.site import Limits, site_of

logger = logging.getLogger(__name__)

router = APIRouter(tags=["completions"])

BASE_ONLY = (
    "these are base models, which continue a text but don't chat; use POST /v1/completions with "
    "`prompt`"
)

BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": CompletionRequest.model_json_schema(),
            "example": {"model": "shakespeare_char", "prompt": "ROMEO:", "max_tokens": 100},
        }
    },
}
ERRORS: dict[int | str, dict[str, object]] = {
    400: {"model": ErrorBody, "description": "something in the request is wrong"},
    404: {"model": ErrorBody, "description": "no model has this name"},
    429: {"model": ErrorBody, "description": "too many completions in progress"},
}


def _models_of(request: Request) -> Models:
    models: Models = request.app.state.models
    return models


@router.post(
    "/v1/completions",
    openapi_extra={"requestBody": BODY},
    responses={200: {"content": {"text/event-stream": {}}}, **ERRORS},
    response_model=None,
)
async def create_completion(http_request: Request) -> Response:
    """Continue a text."""
    began = time.perf_counter()
    meters: Meters = http_request.app.state.meters
    try:
        request = parse_request(await _body_of(http_request), site_of(http_request).limits)
        models = _models_of(http_request)
        model = await _acquire(models, request.model)
        try:
            limits = site_of(http_request).limits
            prompts = await asyncio.to_thread(_prepare, request, model, limits)
            completion = Completion(request, model, prompts, began, meters)
            completion.submit()
        except BaseException:
            models.release(model)
            raise
        return CompletionResponse(completion, models, meters)
    except ApiError as error:
        meters.requests.labels("refused").inc()
        return error.response()


@router.post("/v1/chat/completions", responses=ERRORS)
async def create_chat_completion() -> Response:
    """Refuse: these models don't chat."""
    return ApiError(400, BASE_ONLY, code="unsupported_endpoint").response()


@router.get("/v1/models")
def list_models(request: Request) -> ModelList:
    """List the models that completions can use."""
    found = _models_of(request).files.all()
    return ModelList(data=[ModelObject(id=one.name, created=one.created) for one in found])


@router.get("/v1/models/{name}", responses={404: ERRORS[404]}, response_model=ModelDetails)
def show_model(name: str, request: Request) -> Response | ModelDetails:
    """Describe a model."""
    models = _models_of(request)
    try:
        version = models.check(name)
    except UnknownModelError as error:
        return _unknown(error).response()
    return ModelDetails(id=name, created=created_of(version), settings=models.files.settings(name))


async def _body_of(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise ApiError(400, "the request is incomplete; send it again") from None


async def _acquire(models: Models, name: str) -> LoadedModel:
    try:
        return await models.acquire(name)
    except UnknownModelError as error:
        raise _unknown(error) from None
    except BusyError:
        message = "too many requests in progress; try again later"
        raise ApiError(429, message, kind="rate_limit_error", code="queue_full") from None
    except UnavailableError as error:
        raise ApiError(503, str(error), kind="server_error", code="unavailable") from None
    except Exception as error:
        reason = user_message(error)
        if reason is None:
            logger.exception("%s: can't load this model", name)
            reason = f"{name}: can't load this model; the server's log has the reason"
        raise ApiError(500, reason, kind="server_error", param="model") from None


def _unknown(error: UnknownModelError) -> ApiError:
    hint = f"; did you mean `{error.nearest}`?" if error.nearest else "; see GET /v1/models"
    message = f"no model `{shorten(error.name)}`{hint}"
    return ApiError(404, message, param="model", code="model_not_found")


def _prepare(
    request: CompletionRequest, model: LoadedModel, limits: Limits
) -> list[tuple[list[int], EchoedPrompt | None]]:
    """Return the tokens of each prompt, and what its choices begin with.

    Errors: ApiError for a prompt that can't be answered.
    """
    encoded = _encode(request, model)
    if not request.echo:
        return [(tokens, None) for tokens in encoded]
    is_scored = request.logprobs is not None
    if is_scored:
        n_scores = sum(map(len, encoded)) * (request.n or 1)
        what = "tokens of prompts with all choices to echo"
        check_limit("logprobs", n_scores, limits.echoed_scores, what)
    prompts = [EchoedPrompt(tokens, model, is_scored=is_scored) for tokens in encoded]
    for prompt in prompts:
        check_limit("prompt", len(prompt.text), limits.prompt_characters, "characters to echo")
    return list(zip(encoded, prompts, strict=True))


def _encode(request: CompletionRequest, model: LoadedModel) -> list[list[int]]:
    """Return the tokens of each prompt, at least one of each.

    Errors: ApiError for a text or tokens that aren't in the vocabulary.
    """
    encoded = []
    for prompt in request.prompts():
        if not prompt:
            encoded.append(default_prompt(model.tokenizer, model.start))
        elif isinstance(prompt, str):
            unknown = request.sampling(model.settings).unknown
            try:
                encoded.append(encode_prompt(model.tokenizer, prompt, unknown, "prompt"))
            except UserError as error:
                raise ApiError(400, str(error), param="prompt") from None
        else:
            size = model.tokenizer.vocab_size
            wrong = next((token for token in prompt if token >= size), None)
            if wrong is not None:
                message = f"prompt: no token {wrong}; this vocabulary ends at {size - 1}"
                raise ApiError(400, message, param="prompt")
            encoded.append(prompt)
    return encoded
