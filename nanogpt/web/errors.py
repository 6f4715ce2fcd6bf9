"""Answers to requests that fail: one line as JSON, in OpenAI's form for its API."""

import json
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from nanogpt.config.messages import explain_one
from nanogpt.errors import UserError, user_message

OPENAI = "/v1/"


# The types of errors in OpenAI's API, by status.
KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_text(path: str, status: int, message: str) -> str:
    """Return the JSON of the answer to a failed request for a path."""
    line = str(UserError(message))
    if not path.startswith(OPENAI):
        return json.dumps({"error": line})
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return json.dumps({"error": {"message": line, "type": kind, "param": None, "code": None}})


def error_response(
    path: str, status: int, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the answer to a failed request for a path."""
    text = error_text(path, status, message)
    return Response(text, status, dict(headers or {}), "application/json")


def add_error_handlers(app: FastAPI) -> None:
    """Make an application answer all errors in this form."""
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(UserError, _answer_mistake)
    app.add_exception_handler(Exception, _answer_other)


def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(request.url.path, error.status_code, error.detail, error.headers)


def _answer_invalid(request: Request, error: Exception) -> Response:
    """Describe the first mistake in a request's parameters or body."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return error_response(request.url.path, 400, "the request's body isn't valid JSON")
    where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return error_response(request.url.path, 422, f"{where}: {explain_one(first)}")


def _answer_mistake(request: Request, error: Exception) -> Response:
    return error_response(request.url.path, 400, str(error))


def _answer_other(request: Request, error: Exception) -> Response:
    """Describe a full disk and the like. The server's log has the traceback of a bug."""
    known = user_message(error)
    return error_response(
        request.url.path,
        500,
        known or "a bug in nanogpt; please report it with the traceback that the server printed",
    )
