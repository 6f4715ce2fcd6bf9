"""Objects in S3 and storages like it, as links that `downloads` can fetch."""

from nanogpt.errors import UserError

SCHEME = "s3://"


def link_of(url: str) -> str:
    """Return a link to an object, signed with the user's credentials; other URLs as they are.

    boto3 reads the credentials, the region and the server from AWS's variables and files, such as
    AWS_ACCESS_KEY_ID and AWS_ENDPOINT_URL. The link is valid for an hour, and secret.

    Errors: UserError without boto3, or if its settings are missing or wrong.
    """
    if not url.startswith(SCHEME):
        return url
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise UserError("s3:// URLs need boto3; run `pip install boto3`") from None
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    try:
        client = boto3.Session().client("s3", config=Config(signature_version="s3v4"))
        link: str = client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}
        )
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"AWS settings: {str(error).rstrip('.')}") from None
    return link
