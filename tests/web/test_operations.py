"""The endpoints for those who run the server."""

from nanogpt import __version__


def test_the_server_says_that_it_runs(client):
    assert client.get("/healthz").json() == {"status": "ok", "version": __version__}
