"""S3's errors in plain words: what's wrong, and what to do."""

import pytest

from nanogpt.files.buckets import explain, read_refusal

URL = "s3://my-bucket/texts/far.txt"
XML = '<?xml version="1.0"?>\n<Error><Code>{}</Code><Message>{}</Message>{}</Error>'

CASES = {
    "a wrong key id": (
        403,
        "InvalidAccessKeyId",
        "wrong AWS credentials (InvalidAccessKeyId);",
    ),
    "a wrong secret": (
        403,
        "SignatureDoesNotMatch",
        "wrong AWS credentials (SignatureDoes",
    ),
    "old credentials": (400, "ExpiredToken", "the AWS credentials have expired; renew them"),
    "a wrong clock": (403, "RequestTimeTooSkewed", "this machine's clock is wrong; correct it"),
    "no permission": (403, "AccessDenied", "access denied (AccessDenied); check the bucket's"),
    "another region": (
        301,
        "PermanentRedirect",
        "bucket `my-bucket` is in another region; set",
    ),
    "no bucket": (404, "NoSuchBucket", "bucket `my-bucket` doesn't exist; check its name"),
    "no object": (404, "NoSuchKey", "bucket `my-bucket` has no such object; check the URL"),
    "any other": (400, "InvalidRequest", "HTTP 400 InvalidRequest; check your AWS_* variables"),
}


def explained(status: int, body: str, headers: dict[str, str] | None = None) -> str:
    return str(explain(URL, read_refusal(status, headers or {}, body)))


@pytest.mark.parametrize(("status", "code", "message"), CASES.values(), ids=CASES)
def test_an_error_says_what_to_do(status: int, code: str, message: str) -> None:
    assert explained(status, XML.format(code, "No.", "")).startswith(message)


@pytest.mark.parametrize(
    "code",
    [
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "AuthorizationQueryParametersError",
    ],
)
def test_an_error_names_the_region_of_the_bucket(code: str) -> None:
    message = (
        "bucket `my-bucket` is in the region eu-central-1; set AWS_DEFAULT_REGION=eu-central-1"
    )
    headers = {"x-amz-bucket-region": "eu-central-1"}
    assert explained(400, XML.format(code, "No.", ""), headers) == message
    assert explained(400, XML.format(code, "No.", "<Region>eu-central-1</Region>")) == message


def test_a_wrong_link_is_not_taken_for_a_wrong_region() -> None:
    body = XML.format("AuthorizationQueryParametersError", "X-Amz-Expires must be a number", "")
    assert explained(400, body).startswith("HTTP 400 AuthorizationQueryParametersError; check")


@pytest.mark.parametrize("message", ["Request has expired", "Request is not yet valid"])
def test_a_link_of_another_time_is_due_to_a_wrong_clock(message: str) -> None:
    body = XML.format("AccessDenied", message, "<ServerTime>2026-11-29T00:00:00Z</ServerTime>")
    assert explained(403, body) == "this machine's clock is wrong; correct it"


def test_an_error_without_a_code_is_explained_by_its_status() -> None:
    for body in ("", "Forbidden"):
        assert explained(403, body).startswith("access denied (HTTP 403); check")
    assert explained(400, "<html>no</html>") == "HTTP 400; check your AWS_* variables and ~/.aws"
