"""What a config says of an object store: where it is, and as whom it is asked. Never a credential."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from softmax_dask_pipelines.addresses import redacted
from softmax_dask_pipelines.config_schedule import Section

_ENDPOINT = re.compile(r"https?://[^\s/?#]+/?")


def _endpoint(url: str) -> str:
    if redacted(url) != url or not _ENDPOINT.fullmatch(url):
        raise ValueError("a server such as https://minio.example.org:9000, without user, password and path")
    return url


class StorageOptions(Section):
    """How a store on `s3://` is reached. What is left out is found in the environment, as by every AWS program."""

    profile: str | None = Field(None, min_length=1, description="of ~/.aws/config and ~/.aws/credentials")
    endpoint_url: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        None, description="of a store that is not AWS, such as https://minio.example.org:9000"
    )
    region: str | None = Field(None, min_length=1, description="such as eu-central-1")
    anon: bool = Field(False, description="true: a public bucket, asked without credentials")
    requester_pays: bool = Field(False, description="true: the bucket's owner lets those pay who read")


BY_ENVIRONMENT = StorageOptions.model_validate({})
"""Nothing said."""
