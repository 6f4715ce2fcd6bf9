"""Endpoints for those who run the server: /healthz."""

from fastapi import APIRouter

from nanogpt import __version__

router = APIRouter(tags=["operations"])


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """Answer that the server runs."""
    return {"status": "ok", "version": __version__}
