"""The files of the report, each with a policy that lets it do nothing but show itself."""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response

from nanogpt.web.run_files import is_inside, open_inside
from nanogpt.web.site import Site, SiteOf

router = APIRouter(prefix="/report", tags=["report"], include_in_schema=False)

PAGE = "index.html"
KINDS = {".svg": "image/svg+xml", ".csv": "text/csv", ".md": "text/plain"}
FILE = re.compile(r"[A-Za-z0-9_-]+(\.svg|\.csv|\.md)")
MOST_BYTES = 64 << 20
# A sandbox without an origin: whatever is in a report, it can't read the other pages.
POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'none'"
)


def report_pages(site: Site) -> dict[str, str]:
    """Return the addresses of the reports that exist, with their descriptions."""
    found = {
        "/report/": ("report", "Report of the workflow"),
        "/report/now/": ("report/now", "Report on all runs"),
    }
    pages = {address: site.results / found[address][0] / PAGE for address in found}
    return {
        address: found[address][1]
        for address, path in pages.items()
        if path.is_file() and _is_of_report(site, path)
    }


@router.get("/")
def show_report(site: SiteOf) -> Response:
    """Return the report that the workflow makes."""
    return _answer(site, "report", PAGE)


@router.get("/now/")
def show_report_now(site: SiteOf) -> Response:
    """Return the report that `nanogpt report` makes."""
    return _answer(site, "report/now", PAGE)


@router.get("/{file}")
def get_file(file: str, site: SiteOf) -> Response:
    """Return another file of the workflow's report."""
    return _answer(site, "report", file)


@router.get("/now/{file}")
def get_file_now(file: str, site: SiteOf) -> Response:
    """Return another file of `nanogpt report`'s."""
    return _answer(site, "report/now", file)


def _answer(site: Site, directory: str, file: str) -> Response:
    match = FILE.fullmatch(file)
    if file != PAGE and match is None:
        raise HTTPException(404, "no such file of a report")
    path = site.results / directory / file
    opened = open_inside(path, site.results) if _is_of_report(site, path) else None
    if opened is None:
        raise HTTPException(404, f"no {directory}/{file}")
    with opened:
        content = opened.read(MOST_BYTES)
    kind = KINDS[match[1]] if match else "text/html"
    policy = f"{POLICY}; script-src {_script_hash()}" if file == PAGE else POLICY
    headers = {"content-security-policy": policy, "x-content-type-options": "nosniff"}
    return Response(content, media_type=f"{kind}; charset=utf-8", headers=headers)


def _is_of_report(site: Site, path: Path) -> bool:
    """Whether a path is in the report, and the report in the results.

    A link to a run's files isn't followed either.
    """
    report = site.results / "report"
    return is_inside(report, site.results) and is_inside(path, report)


@cache
def _script_hash() -> str:
    """Return the hash of the report's own script, the only one that may run."""
    text = files("nanogpt.report").joinpath("templates/report.html").read_text(encoding="utf-8")
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"
