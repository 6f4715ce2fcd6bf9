"""The answer to a request for completions: its choices while they're generated, and what's sent.

Streams are a pure ASGI response that writes whatever has come since the last write. So a token
costs one task switch and one write, and a slow client gets several tokens in one event.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring_ascii as quote

from fastapi import Response
from starlette.types import Receive, Scope, Send

from nanogpt.inference.engine import Prompt, Step
from nanogpt.web.choices import Choice, EchoedPrompt
from nanogpt.web.generating import BusyError, ClosedError, GenerationJob, explain_failure, too_many
from nanogpt.web.meters import Meters
from nanogpt.web.models import LoadedModel, Models
from nanogpt.web.openai_schema import ApiError, CompletionRequest

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"
PART = 1 << 16  # bytes of a body to send at once, so that no more waits for a slow client
# Log probabilities of prompts to write in the event loop, which takes about a millisecond.
MOST_WRITTEN = 500


class Completion:
    """A request's choices while they're generated. It's used in the event loop only."""

    def __init__(
        self,
        request: CompletionRequest,
        model: LoadedModel,
        prompts: Sequence[tuple[Sequence[int], EchoedPrompt | None]],
        began: float,
        meters: Meters,
    ) -> None:
        """prompts: the tokens of each, and how choices begin with it. began: when it arrived."""
        self.model = model
        self.streams = bool(request.stream)
        self.counts_usage = bool(request.stream_options and request.stream_options.include_usage)
        self.n_prompt_tokens = sum(len(tokens) for tokens, _ in prompts)
        self.error: Exception | None = None
        self.is_gone = False
        self._prompts = [prompt for _, prompt in prompts if prompt]
        self._n_best = request.logprobs or 0
        self._began = began  # 0 after the first token
        self._meters = meters
        self._waits_for_all = False
        self._waiter: asyncio.Future[None] | None = None
        self._has_news = False
        settings = request.sampling(model.settings)
        seed = request.seed
        if seed is None:
            seed = settings.seed if request.use_run_settings else secrets.randbelow(2**31)
        self.head = (
            f'{{"id":"cmpl-{secrets.token_hex(12)}","object":"text_completion",'
            f'"created":{int(time.time())},"model":{quote(model.name)},"seed":{seed},"choices":['
        )
        each = [pair for pair in prompts for _ in range(request.n or 1)]
        loop = asyncio.get_running_loop()
        self.choices: list[Choice] = []
        self.jobs: list[GenerationJob] = []
        for index, (tokens, echoed) in enumerate(each):
            choice = Choice(
                index,
                model,
                prompt=echoed,
                has_scores=request.logprobs is not None,
                is_empty=request.max_tokens == 0,
            )
            prompt = Prompt(
                tokens,
                settings.model_copy(update={"seed": seed + index}),
                self._n_best,
                scored=echoed is not None and request.logprobs is not None,
            )
            self.choices.append(choice)
            self.jobs.append(GenerationJob(prompt, self._receiver(choice), self.fail, loop))

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

    async def take(self) -> list[str]:
        """Return the JSON of the choices that have something new."""
        unwritten = [prompt for prompt in self._prompts if prompt.is_unwritten]

        def write() -> None:
            for prompt in unwritten:
                prompt.write()

        if sum(len(prompt.tokens) for prompt in unwritten) * (self._n_best + 1) > MOST_WRITTEN:
            await asyncio.to_thread(write)
        else:
            write()
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

    def __init__(self, completion: Completion, models: Models, meters: Meters) -> None:
        super().__init__(media_type=SSE if completion.streams else JSON)
        self._completion = completion
        self._models = models
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the answer."""
        completion = self._completion
        watcher = asyncio.create_task(self._watch(receive))
        outcome = "cancelled"
        try:
            await (self._stream if completion.streams else self._send_whole)(send)
            if completion.error:
                outcome = "failed"
            elif not completion.is_gone:
                outcome = "ok"
        finally:
            watcher.cancel()
            completion.cancel()
            self._models.release(completion.model)
            self._meters.requests.labels(outcome).inc()

    async def _watch(self, receive: Receive) -> None:
        """Note when the client goes away."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._completion.leave()

    async def _send_whole(self, send: Send) -> None:
        completion = self._completion
        await completion.wait(for_all=True)
        if completion.error:
            await self._send_error(send, completion.error)
        elif not completion.is_gone:
            choices = ",".join(await completion.take())
            body = f'{completion.head}{choices}],"usage":{completion.usage()}}}'.encode()
            await self._begin(send, JSON, len(body))
            for first in range(0, len(body), PART):
                await self._send(send, body[first : first + PART], more=first + PART < len(body))

    async def _stream(self, send: Send) -> None:
        completion = self._completion
        await completion.wait()
        if completion.error:
            await self._send_error(send, completion.error)
            return
        await self._begin(send, SSE)
        head = f"data: {completion.head}"
        tail = '],"usage":null}\n\n' if completion.counts_usage else "]}\n\n"
        is_last = False
        while not (is_last or completion.is_gone):
            # More can come while this part is sent.
            is_last = bool(completion.error) or completion.is_complete
            parts = await completion.take()
            if parts:
                events = "".join([f"{head}{part}{tail}" for part in parts])
                await self._send(send, events.encode())
            if not is_last:
                await completion.wait()
        end = DONE
        if completion.error:
            end = b"data: " + _failure(completion.error).response().body + b"\n\n"
        elif completion.counts_usage:
            end = f'{head}],"usage":{completion.usage()}}}\n\n'.encode() + DONE
        await self._send(send, end, more=False)

    async def _send_error(self, send: Send, error: Exception) -> None:
        answer = _failure(error).response()
        headers = [*answer.raw_headers, (b"cache-control", b"no-cache")]
        start = {"type": "http.response.start", "status": answer.status_code, "headers": headers}
        await send(start)
        await self._send(send, bytes(answer.body), more=False)

    async def _begin(self, send: Send, kind: str, length: int | None = None) -> None:
        headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-cache")]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": body, "more_body": more})


def _failure(error: Exception) -> ApiError:
    message = explain_failure(error)
    if isinstance(error, ClosedError):
        return ApiError(503, message, kind="server_error", code="unavailable")
    return ApiError(500, message, kind="server_error")
