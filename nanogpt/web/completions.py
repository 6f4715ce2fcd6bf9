"""Completions and models, in the form of OpenAI's API: /v1/completions and /v1/models."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring_ascii as quote

from fastapi import APIRouter, Request, Response
from starlette.types import Message, Receive, Scope, Send

from nanogpt.errors import UserError
from nanogpt.inference.engine import Prompt, Step
from nanogpt.inference.prompts import default_prompt, encode_prompt
from nanogpt.web.choices import Choice
from nanogpt.web.generating import BusyError, ClosedError, Job, explain_failure, too_many
from nanogpt.web.meters import Meters
from nanogpt.web.models import LoadedModel, Models, UnavailableError, UnknownModelError
from nanogpt.web.openai_schema import (
    ApiError,
    CompletionRequest,
    ErrorBody,
    ModelDetails,
    ModelList,
    ModelObject,
    parse_request,
)
from nanogpt.web.site import site_of

router = APIRouter(tags=["completions"])

SSE = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"
# A client that reads nothing for this many seconds is given up.
LONGEST_STALL = 60.0
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
async def create_completion(request: Request) -> Response:
    """Continue a text."""
    began = time.perf_counter()
    meters: Meters = request.app.state.meters
    try:
        asked = parse_request(await request.body(), site_of(request).limits)
        models = _models_of(request)
        model = await _acquire(models, asked.model)
        try:
            prompts = await asyncio.to_thread(_encode, asked, model)
            completion = _Completion(asked, model, prompts, began, meters)
            completion.submit()
        except BaseException:
            models.release(model)
            raise
        return CompletionResponse(completion, models)
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
    created = version[0][3] // 1_000_000_000
    return ModelDetails(id=name, created=created, settings=models.files.settings(name))


async def _acquire(models: Models, name: str) -> LoadedModel:
    try:
        return await models.acquire(name)
    except UnknownModelError as error:
        raise _unknown(error) from None
    except UnavailableError as error:
        raise ApiError(503, str(error), kind="server_error", code="unavailable") from None
    except UserError as error:
        raise ApiError(500, str(error), kind="server_error", param="model") from None


def _unknown(error: UnknownModelError) -> ApiError:
    hint = f"; did you mean `{error.nearest}`?" if error.nearest else "; see GET /v1/models"
    message = f"no model `{error.name}`{hint}"
    return ApiError(404, message, param="model", code="model_not_found")


def _encode(asked: CompletionRequest, model: LoadedModel) -> list[list[int]]:
    """Return the tokens of each prompt, at least one of each.

    Errors: ApiError for a text or tokens that aren't in the vocabulary.
    """
    encoded = []
    for prompt in asked.prompts():
        if not prompt:
            encoded.append(default_prompt(model.tokenizer, model.start))
        elif isinstance(prompt, str):
            unknown = asked.sampling(model.settings).unknown
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


class _Completion:
    """A request's choices while they're generated. It's used in the event loop only."""

    def __init__(
        self,
        asked: CompletionRequest,
        model: LoadedModel,
        prompts: Sequence[Sequence[int]],
        began: float,
        meters: Meters,
    ) -> None:
        self.model = model
        self.streams = bool(asked.stream)
        self.counts_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        self.n_prompt_tokens = sum(map(len, prompts))
        self.error: Exception | None = None
        self.is_gone = False
        self._began = began  # 0 after the first token
        self._meters = meters
        self._waits_for_all = False
        self._waiter: asyncio.Future[None] | None = None
        self._has_news = False
        settings = asked.sampling(model.settings)
        seed = asked.seed
        if seed is None:
            seed = settings.seed if asked.use_run_settings else secrets.randbelow(2**31)
        self.head = (
            f'{{"id":"cmpl-{secrets.token_hex(12)}","object":"text_completion",'
            f'"created":{int(time.time())},"model":{quote(model.name)},"seed":{seed},"choices":['
        )
        each = [tokens for tokens in prompts for _ in range(asked.n or 1)]
        loop = asyncio.get_running_loop()
        self.choices: list[Choice] = []
        self.jobs: list[Job] = []
        for index, tokens in enumerate(each):
            choice = Choice(
                index,
                model,
                echo=bool(asked.echo),
                n_best=asked.logprobs,
                is_empty=asked.max_tokens == 0,
            )
            prompt = Prompt(
                tokens,
                settings.model_copy(update={"seed": seed + index}),
                asked.logprobs or 0,
                scored=bool(asked.echo) and asked.logprobs is not None,
            )
            self.choices.append(choice)
            self.jobs.append(Job(prompt, self._receiver(choice), self.fail, loop))

    def submit(self) -> None:
        """Queue all choices.

        Errors: ApiError if there are too many already.
        """
        batcher = self.model.batcher
        try:
            batcher.submit(self.jobs)
        except BusyError:
            message = too_many(batcher.load())
            raise ApiError(429, message, kind="rate_limit_error", code="queue_full") from None
        except ClosedError as error:
            message = explain_failure(error)
            raise ApiError(503, message, kind="server_error", code="unavailable") from None
        self._meters.prompt_tokens.inc(self.n_prompt_tokens)

    def cancel(self) -> None:
        """Stop what is still generated."""
        if not self.is_complete:
            self.model.batcher.cancel(self.jobs)

    @property
    def is_complete(self) -> bool:
        """Whether all choices have their last token."""
        return all(choice.finish for choice in self.choices)

    def _receiver(self, choice: Choice) -> Callable[[Step], None]:
        def receive(step: Step) -> None:
            if self._began:
                self._meters.first_token.observe(time.perf_counter() - self._began)
                self._began = 0.0
            choice.add(step)
            self._has_news = True
            if not self._waits_for_all or step.finish:
                self._wake()

        return receive

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.error = error
        self._wake()

    def leave(self) -> None:
        """Note that the client has gone."""
        self.is_gone = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, *, for_all: bool = False) -> None:
        """Wait for tokens (or for all of them), an error, or the client's end."""
        self._waits_for_all = for_all
        while not (self.error or self.is_gone):
            if self.is_complete if for_all else self._has_news:
                break
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def take(self) -> list[str]:
        """Return the JSON of the choices that have something new."""
        self._has_news = False
        return [part for choice in self.choices if (part := choice.take())]

    def usage(self) -> str:
        """Return the number of tokens, as JSON."""
        n_new = sum(choice.n_tokens for choice in self.choices)
        return (
            f'{{"prompt_tokens":{self.n_prompt_tokens},"completion_tokens":{n_new},'
            f'"total_tokens":{self.n_prompt_tokens + n_new}}}'
        )


class CompletionResponse(Response):
    """The answer to a request for completions, as one object or as a stream of events.

    Nothing is sent before the first token, so an error until then has its own status. If the client
    goes away, its sequences leave the engine with the next step.
    """

    def __init__(self, completion: _Completion, models: Models) -> None:
        super().__init__(media_type=SSE if completion.streams else "application/json")
        self._completion = completion
        self._models = models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        completion = self._completion
        watcher = asyncio.create_task(self._watch(receive))
        outcome = "cancelled"
        try:
            if completion.streams:
                await self._stream(scope, receive, send)
            else:
                await self._send_whole(scope, receive, send)
            if completion.is_complete and not completion.is_gone:
                outcome = "ok"
            elif completion.error:
                outcome = "failed"
        finally:
            watcher.cancel()
            completion.cancel()
            self._models.release(completion.model)
            completion._meters.requests.labels(outcome).inc()

    async def _watch(self, receive: Receive) -> None:
        """Note when the client goes away."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._completion.leave()

    async def _send_whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        completion = self._completion
        await completion.wait(for_all=True)
        if completion.error:
            await self._error(completion.error).response()(scope, receive, send)
            return
        choices = ",".join(completion.take())
        body = f'{completion.head}{choices}],"usage":{completion.usage()}}}'
        await Response(body, media_type="application/json")(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        completion = self._completion
        await completion.wait()
        if completion.error:
            await self._error(completion.error).response()(scope, receive, send)
            return
        headers = [(b"content-type", SSE.encode()), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        head = f"data: {completion.head}"
        tail = '],"usage":null}\n\n' if completion.counts_usage else "]}\n\n"
        message: Message = {"type": "http.response.body", "body": b"", "more_body": True}
        while not completion.is_gone:
            parts = completion.take()
            if parts:
                events = "".join([f"{head}{part}{tail}" for part in parts])
                message["body"] = events.encode()
                await send(message)
            if completion.error or completion.is_complete:
                break
            await completion.wait()
        end = DONE
        if completion.error:
            error = self._error(completion.error).response()
            end = b"data: " + bytes(error.body) + b"\n\n"
        elif completion.counts_usage:
            end = f'{head}],"usage":{completion.usage()}}}\n\n'.encode() + DONE
        await send({"type": "http.response.body", "body": end, "more_body": False})

    @staticmethod
    def _error(error: Exception) -> ApiError:
        return ApiError(500, explain_failure(error), kind="server_error")
