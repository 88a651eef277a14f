"""Paths that are addresses in an object store, `s3://bucket/key`: what they may hold, and what is never shown of them.

Knows no store, and asks none.
"""

import re
from importlib.util import find_spec

from softmax_dask_pipelines.errors import ConfigError

SCHEME = "s3://"

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,62}", re.IGNORECASE)
_USER = re.compile(r"(://)[^/?#\s]*@")
_SECRET_NAME = re.compile(
    "secret|token|passw|credential|signature|access_?key|account_?key|connection_string|sas(?![a-z])|^key$|^pass$",
    re.IGNORECASE,
)
_PARAMETER = re.compile(
    r"([?&;][^=&?;\s]*(?:secret|token|passw|credential|sig|key|sas)[^=&?;\s]*=)[^&;\s'\"]*", re.IGNORECASE
)
_ELSEWHERE = (
    "Name a profile (storage_options: {profile: NAME}), or set "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or give the machine a role (IAM)"
)


def is_address(path: str) -> bool:
    """Whether a path is in an object store."""
    return path.startswith(SCHEME)


def checked_address(path: str) -> str:
    """The address, without slashes at its end.

    Raises
    ------
    ValueError
        It is none, or holds credentials. The message is what was expected, and shows nothing of it.
    """
    address = path.rstrip("/")
    if redacted(address) != address:
        raise ValueError(f"an address without credentials, which are not written down here. {_ELSEWHERE}")
    bucket, _, key = address.removeprefix(SCHEME).partition("/")
    names = key.split("/")
    if not (_BUCKET.fullmatch(bucket) and all(names) and not {".", ".."} & set(names)):
        raise ValueError("an address such as s3://bucket/folder/logits.zarr")
    return address


def require_object_stores(address: str) -> None:
    """Refuse an address where the package that reads it is not installed."""
    if find_spec("s3fs") is None:
        raise ConfigError(
            f"{redacted(address)}: is in an object store, and s3fs is not installed; expected it. Install it: pip "
            "install 'softmax-dask[s3]'."
        )


def require_local(path: str) -> None:
    """Refuse an address where only a local path will do."""
    if is_address(path):
        raise ConfigError(f"{redacted(path)}: is in an object store; expected a local path. Copy it here first.")


def bucket_and_key(address: str) -> tuple[str, str]:
    """The two parts of an address."""
    bucket, _, key = address.removeprefix(SCHEME).partition("/")
    return bucket, key


def without_credentials() -> str:
    """What to say of a key of a config that is a credential by its name."""
    return f"is a credential; expected none in a config. {_ELSEWHERE}."


def is_credential(name: str) -> bool:
    """Whether a key of a config is a credential, by its name."""
    return _SECRET_NAME.search(name) is not None


def redacted(text: str) -> str:
    """`text` without users, passwords and signatures of addresses in it."""
    return _PARAMETER.sub(r"\1***", _USER.sub(r"\1***@", text))
