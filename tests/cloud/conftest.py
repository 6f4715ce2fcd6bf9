"""An S3 server on loopback."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

PACKAGES = ("boto3", "kubernetes", "moto", "snakemake_storage_plugin_s3")
BUCKET = "my-bucket"  # as in docs/STORAGE.md
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these tests if their packages aren't installed."""
    missing = [name for name in PACKAGES if not find_spec(name)]
    for item in items:
        if missing and item.get_closest_marker("cloud"):
            item.add_marker(pytest.mark.skip(f"{missing[0]} isn't installed"))


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of an S3 server."""
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket. The environment has all that boto3 and Snakemake need to use it."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    bucket = boto3.resource("s3").create_bucket(Bucket=BUCKET)
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()
