"""The objects of one bucket: read, listed, put, put where none was, and removed. The only module that asks a store.

Every answer is what was asked for, or an error: a body that is shorter than the part that was asked for never passes.
What may pass (5xx, connections that end, no answer) is tried again by s3fs and botocore a few times, then raised as
an error that `retrying` knows. An object is whole or not there: a store shows no part of a PUT.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from typing import Any, NamedTuple

import fsspec
from aiohttp import ClientError as BrokenTransferError
from botocore import exceptions as boto

from softmax_dask_pipelines.addresses import SCHEME, redacted
from softmax_dask_pipelines.config_store import StorageOptions
from softmax_dask_pipelines.errors import (
    ConfigError,
    PermissionDeniedError,
    PipelineError,
    SourceUnavailableError,
    StorageFailedError,
)

_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 60
_CONNECTIONS = 64
"""At a time, at most: some for each thread that computes."""
_ATTEMPTS = 2
"""Of botocore. s3fs makes five of connections that break, and `retrying` as many as the config says."""

_NO_CREDENTIALS = (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)
_NO_SETTING = (boto.ProfileNotFound, boto.ConfigParseError, boto.NoRegionError)
_FORBIDDEN = (
    "AccessDenied",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "401",
    "403",
)
_PASSING_STATUS = ("408", "409", "429")


class Stat(NamedTuple):
    """How an object looks: another one of the same name has another etag."""

    size: int
    etag: str


class BucketAbsentError(FileNotFoundError):
    """There is no such bucket."""


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """A bucket, and how it is reached. Used by many threads, pickled to other processes."""

    bucket: str
    options: StorageOptions

    def address(self, key: str) -> str:
        """For messages."""
        return f"{SCHEME}{self.bucket}/{key}"

    def stat(self, key: str) -> Stat:
        """How the object looks; FileNotFoundError where there is none."""
        with self._plain_errors(key, may_lack=True):
            found = self._call("head_object", Key=key)
        return Stat(found["ContentLength"], found["ETag"])

    def read(self, key: str, start: int, length: int) -> bytes:
        """These bytes, all of them; FileNotFoundError where there is no object."""
        if not length:
            return b""
        with self._plain_errors(key, may_lack=True):
            data: bytes = self._system.cat_file(f"{self.bucket}/{key}", start=start, end=start + length)
            if len(data) != length:
                raise ConnectionError(f"{len(data)} bytes came where {length} were asked for")
        return data

    def read_known(self, key: str, start: int, length: int) -> bytes:
        """As `read`, of an object that the store has told us of: where it is not there, the store is not itself."""
        with self._there(key):
            return self.read(key, start, length)

    def stat_known(self, key: str) -> Stat:
        """As `stat`, of such an object."""
        with self._there(key):
            return self.stat(key)

    def listing(self, prefix: str) -> Iterator[tuple[str, Stat]]:
        """All objects whose keys begin with `prefix`, in the order of their keys."""
        for page in self._pages(prefix, {}):
            for found in page.get("Contents", ()):
                yield found["Key"], Stat(found["Size"], found["ETag"])

    def first(self, prefix: str) -> str | None:
        """The first key that begins with `prefix`."""
        page = next(self._pages(prefix, {"MaxKeys": 1}))
        return next((str(found["Key"]) for found in page.get("Contents", ())), None)

    def names(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the folders, and of the objects, in a folder ("" or with a slash at its end)."""
        folders, objects = list[str](), list[str]()
        for page in self._pages(folder, {"Delimiter": "/"}):
            folders += [found["Prefix"].removeprefix(folder).rstrip("/") for found in page.get("CommonPrefixes", ())]
            objects += [found["Key"].removeprefix(folder) for found in page.get("Contents", ())]
        return folders, [name for name in objects if name]

    def holds(self, prefix: str) -> bool:
        """Whether there is an object whose key begins with `prefix`."""
        return self.first(prefix) is not None

    def put(self, key: str, data: bytes) -> None:
        """Write an object, in the place of one that is there."""
        with self._plain_errors(key, writing=True):
            self._system.pipe_file(f"{self.bucket}/{key}", data)

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object where none is; False, and nothing changed, where there is one: of two writers one wins."""
        with self._plain_errors(key, writing=True):
            try:
                self._system.pipe_file(f"{self.bucket}/{key}", data, mode="create")
            except OSError as error:
                if not isinstance(error, FileExistsError) and _code(error) != "412":
                    raise
                # It may be our own, whose acknowledgement was lost, so that it was sent again.
                return self.read(key, 0, self.stat(key).size) == data
        return True

    def copy(self, key: str, target: str) -> None:
        """Give an object another name as well; its bytes stay in the store."""
        with self._plain_errors(target, writing=True):
            self._call("copy_object", Key=target, CopySource={"Bucket": self.bucket, "Key": key})

    def remove(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are fine."""
        for start in range(0, len(keys), 1000):
            objects = [{"Key": key} for key in keys[start : start + 1000]]
            with self._plain_errors(keys[start], writing=True):
                found = self._call("delete_objects", Delete={"Objects": objects, "Quiet": True})
                for error in found.get("Errors", ()):
                    raise OSError(f"{error.get('Key')} is not removed: {error.get('Code')}")

    @contextmanager
    def _there(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise SourceUnavailableError(
                f"{self.address(key)}: was listed, and is not there; expected a store that answers what it lists. "
                "Run the same command again."
            ) from _passing(error)

    def _pages(self, prefix: str, more: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A page at a time: fsspec's own listing keeps a dict of a kilobyte for each object."""
        at: dict[str, Any] = {}
        while True:
            with self._plain_errors(prefix):
                page = self._call("list_objects_v2", Prefix=prefix, **more, **at)
            yield page
            if not page.get("IsTruncated"):
                return
            at = {"ContinuationToken": page["NextContinuationToken"]}

    @property
    def _system(self) -> Any:
        return _file_system(self.options)

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._system.call_s3(method, Bucket=self.bucket, **arguments)
        return found

    @contextmanager
    def _plain_errors(self, key: str, *, writing: bool = False, may_lack: bool = False) -> Iterator[None]:
        """What the store says, as errors of ours with a remedy; FileNotFoundError stays where `may_lack`.

        Who lists, writes or removes cannot be told that something is not there: such a store is not itself.
        """
        where = self.address(key)
        try:
            yield
        except (PipelineError, MemoryError):
            raise
        except FileNotFoundError as error:
            if not key or _code(error) == "NoSuchBucket":
                if writing:
                    raise ConfigError(
                        f"{where}: there is no bucket {self.bucket!r}; expected one that is there. Make it, or check "
                        "its name and which endpoint is asked."
                    ) from error
                raise BucketAbsentError(f"{SCHEME}{self.bucket}: there is no such bucket") from error
            if may_lack:
                raise
            raise _away(where, error, writing) from _passing(error)
        except _NO_CREDENTIALS as error:
            raise PermissionDeniedError(
                f"{where}: no credentials are found ({_text(error)}); expected some. Set AWS_PROFILE, or "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the environment, name a profile in storage_options, "
                "or say anon: true of a public bucket."
            ) from error
        except (*_NO_SETTING, boto.ParamValidationError, ValueError) as error:
            raise ConfigError(
                f"{where}: cannot be asked for ({_text(error)}); expected settings that lead to a store. "
                "Check storage_options, ~/.aws/config and the environment."
            ) from error
        except (boto.BotoCoreError, BrokenTransferError, HTTPException, OSError) as error:
            refusal = _refusal(where, error)
            if refusal is not None:
                raise refusal from error
            raise _away(where, error, writing) from _passing(error)


def _refusal(where: str, error: Exception) -> PipelineError | None:
    """What to raise where the store has understood, and does not want to."""
    code, text = _code(error), _text(error)
    if code in _FORBIDDEN or isinstance(error, PermissionError):
        return PermissionDeniedError(
            f"{where}: the store refuses ({text}); expected permission to list, read and, for an output, write. "
            "Check which credentials are found (AWS_PROFILE and the like), and the policy of the bucket."
        )
    if (code[:1] in ("3", "4") or code == "501") and code not in _PASSING_STATUS:
        return ConfigError(
            f"{where}: the store does not take the request ({text}); expected one that it does. Check the region "
            "and the endpoint."
        )
    return None


def _away(where: str, error: Exception, writing: bool) -> PipelineError:
    kind = StorageFailedError if writing else SourceUnavailableError
    return kind(
        f"{where}: cannot be {'written' if writing else 'read'} now ({_text(error)}); expected a store that answers. "
        "Check it, and run the same command again."
    )


def _passing(error: Exception) -> ConnectionError:
    """What `retrying` looks for, whatever stood behind it."""
    passing = ConnectionError(_text(error))
    passing.__cause__ = error
    return passing


def _text(error: Exception) -> str:
    return redacted(str(error)).rstrip(".") or type(error).__name__


def _code(error: BaseException) -> str:
    """The store's own name of what went wrong; its HTTP status where it has no name; "" where it did not answer."""
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None) or {}
    named = str(response.get("Error", {}).get("Code", ""))
    status = str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    return named if named in _FORBIDDEN or named == "NoSuchBucket" else status


@cache
def _file_system(options: StorageOptions) -> Any:
    settings: dict[str, Any] = {
        **options.model_dump(include={"profile", "endpoint_url"}, exclude_none=True),
        "anon": options.anon,
        "requester_pays": options.requester_pays,
        "client_kwargs": {} if options.region is None else {"region_name": options.region},
        "config_kwargs": {
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "read_timeout": _READ_TIMEOUT_S,
            "max_pool_connections": _CONNECTIONS,
            "retries": {"mode": "standard", "total_max_attempts": _ATTEMPTS},
        },
    }
    return fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True, **settings)
