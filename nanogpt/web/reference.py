"""The page /docs: all endpoints, from the same schema as /openapi.json."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from nanogpt.web.pages import page

router = APIRouter()


@dataclass(frozen=True)
class Parameter:
    """A parameter of an endpoint or a field of its body."""

    name: str
    place: str
    kind: str
    is_required: bool
    description: str


@dataclass(frozen=True)
class Endpoint:
    """A method and a path, with what it takes."""

    method: str
    path: str
    summary: str
    description: str
    parameters: list[Parameter]


@dataclass(frozen=True)
class Area:
    """The endpoints with one tag."""

    name: str
    endpoints: list[Endpoint] = field(default_factory=list)


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
def docs_page(request: Request) -> HTMLResponse:
    """Show all endpoints."""
    return page(request, "openapi.html", areas=_areas(request.app.openapi()))


def _areas(schema: dict[str, Any]) -> list[Area]:
    areas: dict[str, Area] = {}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            summary, _, rest = operation.get("description", "").partition("\n\n")
            name = operation.get("tags", ["other"])[0]
            areas.setdefault(name, Area(name)).endpoints.append(
                Endpoint(
                    method.upper(),
                    path,
                    summary.removesuffix("."),
                    rest,
                    [*_parameters(operation), *_body(operation, schema)],
                )
            )
    return list(areas.values())


def _parameters(operation: dict[str, Any]) -> Iterator[Parameter]:
    for one in operation.get("parameters", ()):
        about = one.get("description") or one["schema"].get("description", "")
        yield Parameter(
            one["name"], one["in"], _kind(one["schema"]), one.get("required", False), about
        )


def _body(operation: dict[str, Any], schema: dict[str, Any]) -> Iterator[Parameter]:
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        shape = _resolve(content.get("schema", {}), schema)
        if "properties" not in shape:
            yield Parameter("(the body)", media, _kind(shape), True, "")
        for name, one in shape.get("properties", {}).items():
            is_required = name in shape.get("required", ())
            yield Parameter(name, "body", _kind(one), is_required, one.get("description", ""))


def _resolve(shape: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = shape.get("$ref", "")
    if not reference.startswith("#/components/schemas/"):
        return shape
    found: dict[str, Any] = schema["components"]["schemas"][reference.rpartition("/")[2]]
    return found


def _kind(shape: dict[str, Any]) -> str:
    """Return the type of a value in a few words."""
    if "enum" in shape:
        return " or ".join(map(str, shape["enum"]))
    for key in ("anyOf", "oneOf"):
        if key in shape:
            kinds = (_kind(one) for one in shape[key] if one.get("type") != "null")
            return " or ".join(dict.fromkeys(kinds))
    if "$ref" in shape:
        return str(shape["$ref"]).rpartition("/")[2]
    if shape.get("type") == "array":
        return f"list of {_kind(shape.get('items', {}))}"
    return str(shape.get("type", "any"))
