"""Objects in S3 and storages like it: links to download, and errors in plain words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nanogpt.errors import UserError

SCHEME = "s3://"

# Codes in S3's errors.
WRONG_CREDENTIALS = {"InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
OLD_CREDENTIALS = {"ExpiredToken", "TokenRefreshRequired"}
WRONG_REGION = {
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
}

# Messages for a link that was signed by a wrong clock. Their code is that of a missing permission.
WRONG_CLOCK = ("Request has expired", "not yet valid", "not valid yet")

BUCKET_NAME = r"[A-Za-z0-9._-]+"
SET_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
CHECK_SETTINGS = "check your AWS_* variables and ~/.aws"


@dataclass(frozen=True)
class Refusal:
    """S3's answer to a request that failed. region: the bucket's, if the answer names it."""

    status: int
    code: str = ""
    message: str = ""
    region: str = ""


def read_refusal(status: int, headers: Mapping[str, str], body: str) -> Refusal:
    """Read S3's answer, which can also be that of a proxy, without a code."""

    def field(name: str) -> str:
        found = re.search(f"<{name}>([^<]*)</{name}>", body)
        return found[1] if found else ""

    region = headers.get("x-amz-bucket-region") or field("Region")
    return Refusal(status, field("Code"), field("Message"), region)


class BucketError(UserError):
    """Why an object or bucket can't be read, and what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


def link_of(url: str) -> str:
    """Return a link to an object, signed with the user's credentials; other URLs as they are.

    boto3 reads the credentials, the region and the server from AWS's variables and files, such as
    AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL. The link is valid for an hour, and secret.

    Errors: BucketError without boto3, or if its settings are missing or wrong.
    """
    if not url.startswith(SCHEME):
        return url
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise BucketError("s3:// URLs need boto3", "run `pip install boto3`") from None
    bucket, key = _split(url)
    try:
        client = boto3.Session().client("s3", config=Config(signature_version="s3v4"))
        link: str = client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}
        )
    except (BotoCoreError, ValueError) as error:
        raise _of_settings(error) from None
    return link


def check_bucket(client: Any, url: str) -> None:
    """Raise UserError if the files of a bucket can't be listed, or a prefix can't be used.

    client: of boto3. A bucket that doesn't exist is fine, because Snakemake creates it.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, prefix = _split(url)
    if not re.fullmatch(BUCKET_NAME, bucket):
        raise UserError(
            f"--default-storage-prefix: `{url}` isn't a place in S3; use s3://bucket/path"
        )
    if {"#", "?"} & set(prefix):
        raise UserError(f"{url}: `#` and `?` aren't allowed in a prefix; choose another")
    try:
        client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except ClientError as error:
        refusal = _refusal_of(error.response)
        if refusal.code != "NoSuchBucket":
            found = explain(url, refusal, variable="SNAKEMAKE_STORAGE_S3_REGION")
            raise UserError(f"{url}: {found}") from None
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"{url}: {_of_settings(error)}") from None


def explain(url: str, refusal: Refusal, variable: str = "AWS_DEFAULT_REGION") -> BucketError:
    """Explain why a request for an object failed. variable: sets the region."""
    bucket, _ = _split(url)
    code, status, region = refusal.code, refusal.status, refusal.region
    if code in WRONG_CREDENTIALS:
        return BucketError(f"wrong AWS credentials ({code})", SET_CREDENTIALS)
    if code in OLD_CREDENTIALS:
        return BucketError("the AWS credentials have expired", "renew them")
    if code == "RequestTimeTooSkewed" or any(text in refusal.message for text in WRONG_CLOCK):
        return BucketError("this machine's clock is wrong", "correct it")
    # The region is part of a link. The answer to a wrong one has the right one.
    in_link = code == "AuthorizationQueryParametersError" and region
    if code in WRONG_REGION or status == 301 or in_link:
        where, name = (f"the region {region}", region) if region else ("another region", "...")
        return BucketError(f"bucket `{bucket}` is in {where}", f"set {variable}={name}")
    if code == "NoSuchBucket":
        return BucketError(
            f"bucket `{bucket}` doesn't exist",
            "check its name, and AWS_ENDPOINT_URL if it isn't in Amazon's S3",
        )
    if status == 403:
        return BucketError(
            f"access denied ({code or 'HTTP 403'})",
            "check the bucket's name, and that your credentials can list and read it",
        )
    if status == 404:
        return BucketError(f"bucket `{bucket}` has no such object", "check the URL")
    return BucketError(f"HTTP {status} {code}".rstrip(), CHECK_SETTINGS)


def _refusal_of(response: Any) -> Refusal:
    """The answer in boto3's error."""
    error, answer = response["Error"], response["ResponseMetadata"]
    region = answer["HTTPHeaders"].get("x-amz-bucket-region") or error.get("Region", "")
    code, message = error.get("Code", ""), error.get("Message", "")
    return Refusal(answer["HTTPStatusCode"], code, message, region)


def _split(url: str) -> tuple[str, str]:
    """The bucket and the key of an s3:// URL."""
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    return bucket, key


def _of_settings(error: Exception) -> BucketError:
    """The error for AWS settings that boto3 can't use, or for a server that it can't reach."""
    from botocore.exceptions import ConnectionError as NoConnectionError
    from botocore.exceptions import HTTPClientError, NoCredentialsError

    reason = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, NoCredentialsError):
        return BucketError("no AWS credentials found", SET_CREDENTIALS)
    if isinstance(error, (NoConnectionError, HTTPClientError)):
        return BucketError(reason, "check your network and AWS_ENDPOINT_URL")
    return BucketError(f"AWS settings: {reason}", CHECK_SETTINGS)
