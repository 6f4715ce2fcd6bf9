"""Objects in S3 and storages like it: links to download, and errors in plain words."""

import re
from collections.abc import Mapping
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

SET_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
CHECK_SETTINGS = "check AWS's variables and files"


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
    if {"#", "?"} & set(prefix):
        raise UserError(f"{url}: a prefix can't have `#` or `?`; choose another one")
    try:
        client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except ClientError as error:
        code, answer = error.response["Error"]["Code"], error.response["ResponseMetadata"]
        if code != "NoSuchBucket":
            status, headers = answer["HTTPStatusCode"], answer["HTTPHeaders"]
            found = explain(url, status, headers, code, variable="SNAKEMAKE_STORAGE_S3_REGION")
            raise UserError(f"{url}: {found}") from None
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"{url}: {_of_settings(error)}") from None


def explain(
    url: str,
    status: int,
    headers: Mapping[str, str],
    answer: str,
    variable: str = "AWS_DEFAULT_REGION",
) -> BucketError:
    """Explain S3's response to a request for an object.

    answer: its body, or the code in it. variable: sets the region.
    """
    bucket, _ = _split(url)
    found = re.search(r"<Code>(\w+)</Code>", answer)
    code = found[1] if found else answer if answer.isalnum() else ""
    region = headers.get("x-amz-bucket-region")
    if code in WRONG_CREDENTIALS:
        return BucketError(f"wrong AWS credentials ({code})", SET_CREDENTIALS)
    if code in OLD_CREDENTIALS:
        return BucketError("the AWS credentials have expired", "get new ones")
    if code == "RequestTimeTooSkewed":
        return BucketError("the clock of this machine is wrong", "set it")
    if code in WRONG_REGION or status == 301:
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
            f"check that your credentials may read and list bucket `{bucket}`, and its name",
        )
    if status == 404:
        return BucketError(f"bucket `{bucket}` has no such object", "check the URL")
    return BucketError(f"HTTP {status} {code}".rstrip(), CHECK_SETTINGS)


def _split(url: str) -> tuple[str, str]:
    """The bucket and the key of an s3:// URL."""
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    return bucket, key


def _of_settings(error: Exception) -> BucketError:
    """The error for AWS settings that boto3 can't use."""
    if type(error).__name__ == "NoCredentialsError":
        return BucketError("no AWS credentials found", SET_CREDENTIALS)
    return BucketError(f"AWS settings: {str(error).rstrip('.')}", CHECK_SETTINGS)
