"""The endpoints for those who run the server."""

import asyncio
import threading

from anyio import to_thread
from httpx import ASGITransport, AsyncClient

from nanogpt import __version__
from nanogpt.web.app import create_app


def test_the_server_says_that_it_runs(client):
    assert client.get("/healthz").json() == {"status": "ok", "version": __version__}


def test_it_answers_while_all_threads_are_busy(site, monkeypatch):
    app = create_app(site)
    may_go_on = threading.Event()
    listing = app.state.index.listing
    monkeypatch.setattr(
        app.state.index, "listing", lambda since: may_go_on.wait(20) and listing(since)
    )

    async def ask():
        threads = to_thread.current_default_thread_limiter()
        threads.total_tokens = 1
        transport = ASGITransport(app, client=("127.0.0.1", 1))
        async with AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            waits = asyncio.create_task(client.get("/api/runs"))
            try:
                while not threads.borrowed_tokens:
                    await asyncio.sleep(0.01)
                answer = await asyncio.wait_for(client.get("/healthz"), 10)
            finally:
                may_go_on.set()
            return answer, await waits

    answer, runs = asyncio.run(ask())
    assert answer.json()["status"] == "ok"
    assert runs.json()["runs"] == []
