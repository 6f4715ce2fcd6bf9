"""A model's thread: jobs join and leave a batch, errors reach them, and nothing hangs."""

import asyncio
import threading

import pytest

from nanogpt.errors import UserError
from nanogpt.inference.engine import Engine, Prompt, continuations
from nanogpt.web import generating
from nanogpt.web.generating import (
    Batcher,
    BusyError,
    ClosedError,
    GenerationJob,
    Load,
    explain_failure,
)
from tests.inference.models import TOKENIZER, make_model, prompts_of, random_prompts
from tests.web.made_models import DOUBLE, wait_until

LONG = 100_000  # tokens, more than any test waits for


def make_engine(**options):
    return Engine(make_model(), DOUBLE, TOKENIZER, **options)


def settings(n_tokens, seed=1):
    return DOUBLE.model_copy(update={"max_new_tokens": n_tokens, "seed": seed})


class Client:
    """Collects what a job receives."""

    def __init__(self, prompt, loop):
        self.tokens = []
        self.error = None
        self.ended = asyncio.Event()
        self.job = GenerationJob(prompt, self.receive, self.fail, loop)
        self.thread = None

    def receive(self, step):
        self.thread = threading.current_thread()
        self.tokens.append(step.token)
        if step.finish:
            self.ended.set()

    def fail(self, error):
        self.error = error
        self.ended.set()


def clients_of(prompts):
    loop = asyncio.get_running_loop()
    return [Client(prompt, loop) for prompt in prompts]


@pytest.fixture
def batcher_of():
    """Return a function that starts batchers, which end with the test."""
    started = []

    def start(engine, most_waiting=100, **options):
        started.append(Batcher(engine, most_waiting, **options))
        return started[-1]

    yield start
    for batcher in started:
        batcher.close()
        batcher.join(5)


def test_jobs_get_the_tokens_of_the_engine_whoever_joins_meanwhile(batcher_of):
    prompts = prompts_of(random_prompts(12, 5).tolist(), settings(40))
    expected = continuations(make_engine(), prompts)
    batcher = batcher_of(make_engine(most=5, most_read=7))

    async def main():
        clients = clients_of(prompts)
        for client in clients:
            batcher.submit([client.job])
            await asyncio.sleep(0.002)
        for client in clients:
            await client.ended.wait()
        return clients

    clients = asyncio.run(main())
    assert [client.tokens for client in clients] == expected
    assert {client.thread for client in clients} == {threading.main_thread()}
    wait_until(lambda: batcher.load() == Load(0, 0))


def test_all_tokens_of_a_step_come_in_one_call(batcher_of, monkeypatch):
    batcher = batcher_of(make_engine())
    calls = []

    async def main():
        loop = asyncio.get_running_loop()
        threadsafe = loop.call_soon_threadsafe

        def count(function, *arguments):
            calls.append(function)
            return threadsafe(function, *arguments)

        clients = clients_of(prompts_of(random_prompts(9, 5).tolist(), settings(20)))
        monkeypatch.setattr(loop, "call_soon_threadsafe", count)
        batcher.submit([client.job for client in clients])
        for client in clients:
            await client.ended.wait()

    asyncio.run(main())
    assert len(calls) == 20


def test_a_cancelled_job_makes_room_at_once(batcher_of):
    batcher = batcher_of(make_engine(most=2))

    async def main():
        prompts = prompts_of(random_prompts(4, 5).tolist(), settings(LONG))
        first, second, third, last = clients_of(prompts)
        batcher.submit([first.job, second.job])
        batcher.submit([third.job])
        batcher.submit([last.job])
        while not first.tokens:
            await asyncio.sleep(0.001)
        assert not third.tokens
        batcher.cancel([first.job, last.job])
        n_received = len(first.tokens)
        while not third.tokens:
            await asyncio.sleep(0.001)
        assert len(first.tokens) == n_received
        assert batcher.load() == Load(2, 0)
        batcher.cancel([second.job, third.job])

    asyncio.run(main())
    wait_until(lambda: batcher.load() == Load(0, 0))


def test_too_many_jobs_are_refused_all_or_none(batcher_of):
    batcher = batcher_of(make_engine(most=2), most_waiting=3)

    async def main():
        jobs = [c.job for c in clients_of(prompts_of([[1, 2]] * 7, settings(LONG)))]
        batcher.submit(jobs[:4])
        with pytest.raises(BusyError):
            batcher.submit(jobs[4:6])
        batcher.submit(jobs[4:5])
        with pytest.raises(BusyError):
            batcher.submit(jobs[5:6])
        batcher.cancel(jobs[:2])
        while batcher.load().waiting > 1:
            await asyncio.sleep(0.001)
        batcher.submit(jobs[5:7])

    asyncio.run(main())


@pytest.mark.parametrize("error", [UserError("values overflow; train again"), KeyError("a bug")])
def test_an_error_of_a_step_fails_its_jobs_and_not_the_thread(batcher_of, monkeypatch, error):
    engine = make_engine()
    (expected,) = continuations(make_engine(), [Prompt([1, 2], settings(9))])
    step, has_failed = engine._step, []

    def fail_once():
        if not has_failed:
            has_failed.append(True)
            raise error
        return step()

    monkeypatch.setattr(engine, "_step", fail_once)
    batcher = batcher_of(engine)

    async def main():
        clients = clients_of([Prompt([1, 2], settings(9))] * 2)
        batcher.submit([client.job for client in clients])
        for client in clients:
            await client.ended.wait()
            assert client.error is error
        (later,) = clients_of([Prompt([1, 2], settings(9))])
        batcher.submit([later.job])
        await later.ended.wait()
        assert later.tokens == expected

    asyncio.run(main())
    assert not batcher.is_closed


def test_the_end_of_the_thread_is_an_error_for_all(batcher_of):
    counted = []

    def count(n_tokens):
        counted.append(n_tokens)
        if len(counted) == 3:
            raise SystemError("the thread dies")

    batcher = batcher_of(make_engine(most=1), count=count)

    async def main():
        clients = clients_of(prompts_of([[1], [2]], settings(LONG)))
        batcher.submit([client.job for client in clients])
        for client in clients:
            await client.ended.wait()
            assert isinstance(client.error, SystemError)
            assert "log" in explain_failure(client.error)
        with pytest.raises(ClosedError):
            batcher.submit([clients[0].job])

    asyncio.run(main())
    assert batcher.is_closed


def test_closing_ends_the_thread_and_fails_jobs(batcher_of):
    batcher = batcher_of(make_engine(most=1))

    async def main():
        clients = clients_of(prompts_of([[1], [2]], settings(LONG)))
        batcher.submit([client.job for client in clients])
        while not clients[0].tokens:
            await asyncio.sleep(0.001)
        batcher.close()
        for client in clients:
            await client.ended.wait()
            assert explain_failure(client.error) == "the server stops; try again"

    asyncio.run(main())
    batcher.join(5)
    assert not batcher._thread.is_alive()


def test_too_little_memory_fails_only_those_who_join(batcher_of, monkeypatch):
    engine = make_engine()
    batcher = batcher_of(engine)

    def lack(_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    async def main():
        first, second = clients_of(prompts_of([[1], [2]], settings(LONG)))
        batcher.submit([first.job])
        while not first.tokens:
            await asyncio.sleep(0.001)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "reserve", lack)
            batcher.submit([second.job])
            await second.ended.wait()
        assert "out of memory" in explain_failure(second.error)
        n_tokens = len(first.tokens)
        while len(first.tokens) == n_tokens:
            await asyncio.sleep(0.001)
        assert batcher.load() == Load(1, 0)

    asyncio.run(main())


def test_clients_that_join_one_by_one_seldom_copy_the_cache(batcher_of, monkeypatch):
    engine = make_engine()
    sizes, new_cache = [], engine.decoder._new_cache
    monkeypatch.setattr(engine.decoder, "_new_cache", lambda n: sizes.append(n) or new_cache(n))
    batcher = batcher_of(engine)

    async def main():
        clients = clients_of(prompts_of([[1]] * 9, settings(LONG)))
        for client in clients:
            batcher.submit([client.job])
            while not client.tokens:
                await asyncio.sleep(0.001)
        batcher.cancel([client.job for client in clients])

    asyncio.run(main())
    assert sizes == [1, 2, 4, 8, 16]


def test_an_idle_model_gives_up_the_memory_of_its_keys_and_values(batcher_of, monkeypatch):
    monkeypatch.setattr(generating, "IDLE", 0.05)
    engine = make_engine()
    (expected,) = continuations(make_engine(), [Prompt([1], settings(20))])
    batcher = batcher_of(engine)

    async def main():
        for _ in range(2):
            (client,) = clients_of([Prompt([1], settings(20))])
            batcher.submit([client.job])
            await client.ended.wait()
            assert client.tokens == expected
            while engine.reserved or engine.decoder.cache.numel():
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(main(), 10))


def test_jobs_that_wait_fail_if_a_sequence_cant_leave(batcher_of, monkeypatch):
    engine = make_engine(most=1)
    batcher = batcher_of(engine)

    def fail(_):
        raise KeyError("a bug")

    async def main():
        first, second = clients_of(prompts_of([[1], [2]], settings(LONG)))
        batcher.submit([first.job])
        while not first.tokens:
            await asyncio.sleep(0.001)
        monkeypatch.setattr(engine, "leave", fail)
        batcher.submit([second.job])
        batcher.cancel([first.job])
        await asyncio.wait_for(second.ended.wait(), 10)
        assert isinstance(second.error, KeyError)

    asyncio.run(main())


def test_a_job_that_cant_take_a_token_fails_alone(batcher_of):
    batcher = batcher_of(make_engine())
    (expected,) = continuations(make_engine(), [Prompt([1], settings(20))])

    def fail(_):
        raise KeyError("a bug")

    async def main():
        first, second = clients_of([Prompt([1], settings(20))] * 2)
        first.job.receive = fail
        batcher.submit([first.job, second.job])
        await second.ended.wait()
        assert second.tokens == expected
        assert isinstance(first.error, KeyError)

    asyncio.run(main())
    wait_until(lambda: batcher.load() == Load(0, 0))


def test_a_closed_event_loop_frees_its_jobs(batcher_of):
    batcher = batcher_of(make_engine())

    async def main():
        (client,) = clients_of([Prompt([1], settings(LONG))])
        batcher.submit([client.job])
        while not client.tokens:
            await asyncio.sleep(0.001)

    asyncio.run(main())
    wait_until(lambda: batcher.load() == Load(0, 0))


@pytest.mark.parametrize("was_late", [False, True])
def test_the_thread_waits_for_an_event_loop_that_is_behind(batcher_of, monkeypatch, was_late):
    """Even if it has once been so late that the thread went on."""
    n_generated = []
    batcher = batcher_of(make_engine(), count=n_generated.append)

    async def main():
        (client,) = clients_of([Prompt([1], settings(LONG))])
        batcher.submit([client.job])
        while not client.tokens:
            await asyncio.sleep(0.001)
        if was_late:
            with monkeypatch.context() as patch:
                patch.setattr(generating, "LONGEST_WAIT", 0.01)
                threading.Event().wait(0.3)
            await asyncio.sleep(0.05)
        n_before = len(n_generated)
        threading.Event().wait(0.5)  # blocks the event loop
        # The last step is one that the thread still wants to hand over.
        assert len(n_generated) - n_before <= generating.MOST_AHEAD + 2
        batcher.cancel([client.job])

    asyncio.run(main())
