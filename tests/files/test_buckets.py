"""S3's errors in plain words: what's wrong, and what to do."""

import pytest

from nanogpt.files.buckets import explain

URL = "s3://my-bucket/texts/far.txt"
XML = '<?xml version="1.0"?>\n<Error><Code>{}</Code><Message>No.</Message></Error>'

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
    "old credentials": (400, "ExpiredToken", "the AWS credentials have expired; get new ones"),
    "a wrong clock": (403, "RequestTimeTooSkewed", "the clock of this machine is wrong; set it"),
    "no permission": (403, "AccessDenied", "access denied (AccessDenied); check that your cred"),
    "another region": (
        301,
        "PermanentRedirect",
        "bucket `my-bucket` is in another region; set",
    ),
    "no bucket": (404, "NoSuchBucket", "bucket `my-bucket` doesn't exist; check its name"),
    "no object": (404, "NoSuchKey", "bucket `my-bucket` has no such object; check the URL"),
    "any other": (400, "InvalidRequest", "HTTP 400 InvalidRequest; check AWS's variables"),
}


@pytest.mark.parametrize(("status", "code", "message"), CASES.values(), ids=CASES)
def test_an_error_says_what_to_do(status: int, code: str, message: str) -> None:
    assert str(explain(URL, status, {}, XML.format(code))).startswith(message)
    assert str(explain(URL, status, {}, code)) == str(explain(URL, status, {}, XML.format(code)))


@pytest.mark.parametrize("code", ["PermanentRedirect", "AuthorizationHeaderMalformed"])
def test_an_error_names_the_region_of_the_bucket(code: str) -> None:
    headers = {"x-amz-bucket-region": "eu-central-1"}
    assert str(explain(URL, 400, headers, XML.format(code))) == (
        "bucket `my-bucket` is in the region eu-central-1; set AWS_DEFAULT_REGION=eu-central-1"
    )


def test_an_error_without_a_body_is_explained_by_its_status() -> None:
    assert str(explain(URL, 403, {}, "")).startswith("access denied (HTTP 403); check")
    assert (
        str(explain(URL, 400, {}, "<html>no</html>")) == "HTTP 400; check AWS's variables and files"
    )
