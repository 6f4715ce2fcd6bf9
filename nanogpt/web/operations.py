"""Endpoints for those who run the server: /healthz and /metrics."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from nanogpt import __version__
from nanogpt.web.meters import Meters
from nanogpt.web.models import Models
from nanogpt.web.site import site_of

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz(request: Request) -> dict[str, str]:
    """Answer that the server runs, even while all threads of the other endpoints are busy.

    A public server answers without a token, as load balancers need it, and hides its version.
    """
    status = {"status": "ok"}
    return status if site_of(request).is_public else {**status, "version": __version__}


@router.get("/metrics", response_class=Response)
def metrics(request: Request) -> Response:
    """Report to Prometheus: requests, tokens, times, and what's in memory."""
    meters: Meters = request.app.state.meters
    models: Models = request.app.state.models
    loaded = models.in_memory()
    loads = [model.batcher.load() for model in loaded]
    meters.running.set(sum(load.running for load in loads))
    meters.waiting.set(sum(load.waiting for load in loads))
    meters.models.set(len(loaded))
    meters.model_bytes.set(sum(model.n_bytes for model in loaded))
    return Response(generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)
