"""Pages from templates, with everything escaped."""

from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nanogpt import __version__
from nanogpt.web.site import site_of
from nanogpt.web.wording import FILTERS

templates = Jinja2Templates(
    env=Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
)
templates.env.filters.update(FILTERS)


def page(request: Request, name: str, status_code: int = 200, **context: object) -> HTMLResponse:
    """Render a template as the answer to a request. context: the template's variables."""
    context |= {"site": site_of(request), "path": request.url.path, "version": __version__}
    return templates.TemplateResponse(request, name, context, status_code)
