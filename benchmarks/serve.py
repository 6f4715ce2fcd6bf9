"""Measure `nanogpt serve` under many simultaneous streaming clients, on this machine only.

    python benchmarks/serve.py                              200 clients of a 10.65M model, a minute
    python benchmarks/serve.py --seconds=600                ten minutes, to see that memory is flat
    python benchmarks/serve.py --model=0.8M --clients=50

The server has one core, and the clients have another (Linux only). All clients start at once, and
each sends a new request when its text has ended, until the time is over. The clients' first texts
have all lengths up to that of the later ones, so that they don't end together. Before and after
that, the engine alone generates the same sequences for up to a minute, in one thread on the
server's core: the mean of its CPU times per token is what the server's is compared with. CPU time
is counted in the last two thirds of the time. Weights are random. Prints figures; the last line is JSON.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from nanogpt.config.schema import ModelSettings, SampleSettings  # noqa: E402
from nanogpt.data.tokenizers import char_tokenizer  # noqa: E402

MODELS = {
    "0.8M": ModelSettings(n_layer=4, n_head=4, n_embd=128, block_size=64, dropout=0.0),
    "10.65M": ModelSettings(n_layer=6, n_head=6, n_embd=384, block_size=256, dropout=0.0),
}
TOKENIZER = char_tokenizer("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,:;!?\n'-&3$")
HOST, PORT = "127.0.0.1", 8791
SERVER_CORE, CLIENT_CORE = 0, 1
WARM_UP = 1 / 3  # of the time, before CPU time is counted
SHORTEST = 15.0  # seconds
ENGINE_SECONDS = 60.0  # the most for the engine alone
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Result:
    """What was measured. Times in seconds, memory in MiB, CPU time per token in microseconds.

    memory_start: when CPU time begins to count, with all clients being served.
    """

    model: str
    clients: int
    texts: int
    lost: int
    first_token_p50: float
    first_token_p99: float
    first_wave_max: float
    tokens_per_second: float
    server_cpu_per_token: float
    engine_cpu_per_token: float
    ratio: float
    memory_start: float
    memory_end: float
    client_cpu_share: float


@dataclass
class Counts:
    """What the clients saw. first_tokens: seconds until a text began, in order."""

    texts: int = 0
    lost: int = 0
    first_tokens: list[float] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)


def length_of_first(number: int, arguments: argparse.Namespace) -> int:
    """Return the number of tokens of a client's first text."""
    length: int = arguments.tokens * (number + 1) // arguments.clients
    return max(1, length)


def prompts(n: int, length: int) -> list[str]:
    """Return different prompts."""
    generator = random.Random(1)
    return ["".join(generator.choices(TOKENIZER.vocabulary, k=length)) for _ in range(n)]


# --- The engine alone -----------------------------------------------------------------------


def engine_alone(arguments: argparse.Namespace) -> float:
    """Return the engine's CPU time per token in seconds."""
    os.sched_setaffinity(0, {SERVER_CORE})
    import torch

    from nanogpt.inference.engine import Engine, Prompt
    from nanogpt.model.gpt import GPT
    from nanogpt.web.models import MOST_READ

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT(MODELS[arguments.model], TOKENIZER.vocab_size).eval()
    base = SampleSettings(
        device="cpu", dtype="float32", temperature=1, top_k=0, max_new_tokens=arguments.tokens
    )
    engine = Engine(model, base, TOKENIZER, most=arguments.clients, most_read=MOST_READ)
    rows = [
        TOKENIZER.encode(text).tolist() for text in prompts(arguments.clients, arguments.prompt)
    ]
    seed = n_tokens = 0
    seconds = min(arguments.seconds, ENGINE_SECONDS)
    began, cpu = time.monotonic(), 0.0
    while True:
        while len(engine.sequences) < arguments.clients:
            row = rows[seed % len(rows)]
            settings = base.model_copy(update={"seed": seed})
            if seed < arguments.clients:
                length = length_of_first(seed, arguments)
                settings = settings.model_copy(update={"max_new_tokens": length})
            engine.join(Prompt(row, settings))
            seed += 1
        elapsed = time.monotonic() - began
        if elapsed > WARM_UP * seconds and not cpu:
            n_tokens, cpu = 0, time.process_time()
        if elapsed > seconds:
            return (time.process_time() - cpu) / n_tokens
        n_tokens += len(engine.step())


# --- The clients ----------------------------------------------------------------------------


async def client(text: str, number: int, arguments: argparse.Namespace, counts: Counts) -> None:
    """Send one request after another, over one connection, until the time is over."""
    end = time.monotonic() + arguments.seconds
    reader, writer = await asyncio.open_connection(HOST, PORT)
    seed, length = number, length_of_first(number, arguments)
    while time.monotonic() < end:
        body = json.dumps(
            {
                "model": "model",
                "prompt": text,
                "max_tokens": length,
                "seed": seed,
                "stream": True,
            }
        ).encode()
        seed, length = seed + arguments.clients, arguments.tokens
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n"
        began = time.monotonic()
        writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        counts.texts += 1
        try:
            status = await reader.readuntil(b"\r\n\r\n")
            if not status.startswith(b"HTTP/1.1 200"):
                raise ValueError(status.splitlines()[0].decode())
            await _read_text(reader, began, end, counts)
        except (ValueError, OSError, asyncio.IncompleteReadError) as error:
            counts.lost += 1
            counts.reasons.add(str(error))
            break
    writer.close()


async def _read_text(
    reader: asyncio.StreamReader, began: float, end: float, counts: Counts
) -> None:
    """Read a chunked response up to its end, or leave when the time is over."""
    last, is_first = b"", True
    while True:
        part = await reader.read(1 << 16)
        if not part:
            raise ValueError("the stream ended early")
        if is_first:
            counts.first_tokens.append(time.monotonic() - began)
            is_first = False
        last = last[-64:] + part
        if last.endswith(b"0\r\n\r\n"):
            if b"data: [DONE]" not in last:
                raise ValueError("the stream has no end")
            return
        if time.monotonic() > end:
            return


async def run_clients(
    arguments: argparse.Namespace, pid: int
) -> tuple[Counts, float, float, tuple[float, float]]:
    """Run all clients.

    Returns what they saw, and the server's CPU time per token, its rate, and its memory at the
    start and end of what is counted.
    """
    counts = Counts()
    texts = prompts(arguments.clients, arguments.prompt)
    tasks = [
        asyncio.create_task(client(text, number, arguments, counts))
        for number, text in enumerate(texts)
    ]
    await asyncio.sleep(WARM_UP * arguments.seconds)
    cpu, n_tokens, began = cpu_seconds(pid), await generated(), time.monotonic()
    before = memory(pid)
    await asyncio.sleep((1 - WARM_UP) * arguments.seconds - 1)
    cpu, n_tokens = cpu_seconds(pid) - cpu, await generated() - n_tokens
    rate = n_tokens / (time.monotonic() - began)
    after = memory(pid)
    await asyncio.gather(*tasks)
    return counts, cpu / n_tokens, rate, (before, after)


async def generated() -> float:
    """Return the number of tokens that the server has generated."""
    reader, writer = await asyncio.open_connection(HOST, PORT)
    writer.write(f"GET /metrics HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    page = (await reader.read(-1)).decode()
    writer.close()
    found = re.search(r"^nanogpt_generated_tokens_total (\S+)", page, re.MULTILINE)
    assert found, page
    return float(found[1])


# --- The server -----------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, of all its threads, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


@contextmanager
def server(model: str) -> Iterator[int]:
    """Serve a random model from a temporary directory, on its own core; yields the process id."""
    import torch

    from nanogpt.model.directories import save_model
    from nanogpt.model.gpt import GPT

    with tempfile.TemporaryDirectory() as temporary:
        results = Path(temporary) / "results"
        torch.manual_seed(0)
        weights = GPT(MODELS[model], TOKENIZER.vocab_size).state_dict()
        save_model(results / "model/model", weights, MODELS[model], TOKENIZER)
        command = [sys.executable, "-m", "nanogpt", "serve", f"--port={PORT}"]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *command], cwd=temporary, env=environment
        )
        try:
            asyncio.run(_wait_until_loaded())
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


async def _wait_until_loaded() -> None:
    """Wait until the server runs and has loaded the model."""
    body = b'{"model":"model","max_tokens":1}'
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
    for _ in range(300):
        try:
            reader, writer = await asyncio.open_connection(HOST, PORT)
        except OSError:
            await asyncio.sleep(0.2)
            continue
        writer.write(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.read(-1)
        writer.close()
        assert b" 200 " in answer, answer
        return
    raise TimeoutError("the server doesn't answer")


def engine_in_a_process() -> float:
    """Measure the engine in another process, with this one's arguments."""
    command = [sys.executable, __file__, "--engine", *sys.argv[1:]]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(arguments: argparse.Namespace) -> Result:
    """Measure the engine, then the server."""
    engine = [engine_in_a_process()]
    with server(arguments.model) as pid:
        os.sched_setaffinity(0, {CLIENT_CORE})
        began, cpu = time.monotonic(), time.process_time()
        counts, per_token, rate, memories = asyncio.run(run_clients(arguments, pid))
        share = (time.process_time() - cpu) / (time.monotonic() - began)
    os.sched_setaffinity(0, {SERVER_CORE, CLIENT_CORE})
    engine.append(engine_in_a_process())
    alone = statistics.mean(engine)
    if counts.reasons:
        print(*counts.reasons, sep="\n", file=sys.stderr)
    firsts = counts.first_tokens
    return Result(
        model=arguments.model,
        clients=arguments.clients,
        texts=counts.texts,
        lost=counts.lost,
        first_token_p50=statistics.median(firsts),
        first_token_p99=statistics.quantiles(firsts, n=100)[-1],
        first_wave_max=max(firsts[: arguments.clients]),
        tokens_per_second=rate,
        server_cpu_per_token=1e6 * per_token,
        engine_cpu_per_token=1e6 * alone,
        ratio=per_token / alone,
        memory_start=memories[0],
        memory_end=memories[1],
        client_cpu_share=share,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="10.65M")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--tokens", type=int, default=200, help="of each text")
    parser.add_argument("--prompt", type=int, default=16, help="tokens of each prompt")
    parser.add_argument("--engine", action="store_true", help="measure only the engine")
    arguments = parser.parse_args()
    if arguments.seconds < SHORTEST:
        parser.error(f"--seconds: at least {SHORTEST:.0f}")
    if arguments.engine:
        print(engine_alone(arguments))
        return
    figures = asdict(measure(arguments))
    for name, value in figures.items():
        print(f"{name:>22}  {f'{value:,.3f}' if isinstance(value, float) else value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
