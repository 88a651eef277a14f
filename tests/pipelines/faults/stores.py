"""A store whose answers are spoilt at random, and a run from it to it: `python -m tests.pipelines.faults.stores N`.

Whatever comes of it, the output is not there, or has the bytes that a run writes to which nothing happens. Needs
s3fs and moto.
"""

import json
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

from softmax_dask_pipelines import object_store, retrying, score
from softmax_dask_pipelines.errors import PipelineError
from tests.pipelines import dumps
from tests.pipelines.objects import faults
from tests.pipelines.objects.buckets import Bucket
from tests.pipelines.objects.faults import Fault, Proxy
from tests.pipelines.objects.server import served, settings

FAULTS: dict[str, tuple[str, Fault]] = {
    "503": ("", faults.says(503, "SlowDown")),
    "500": ("", faults.says(500, "InternalError")),
    "403": ("", faults.says(403, "AccessDenied")),
    "404": ("", faults.says(404, "NoSuchKey")),
    "connection reset": ("", faults.reset),
    "body cut off": ("GET", faults.truncated),
    "short body": ("GET", faults.short),
    "no answer in time": ("", faults.slow(0.5)),
}
"""Of which requests ("" is any). Of a PUT that the store has taken, each loses the acknowledgement."""

_READ_TIMEOUT_S = 0.4
_CHANCE, _MOST = 0.3, 4
"""That an answer is spoilt, and how many of one attempt."""
_ATTEMPTS = 3
_UNDISTURBED_ATTEMPTS = 10
_COLUMNS = ("label", "probabilities")


def spoilt(bucket: Bucket, proxy: Proxy, fault: str, folder: Path, *, at_least: int) -> dict[str, Any]:
    """Runs, some attempts of each with answers that are spoilt, the last without, until there were so many."""
    source = dumps.zarr_group(folder / "dump.zarr", dumps.logits(), chunks=(10, 5))
    address = bucket.upload(source, "dump.zarr")
    if (ended := _undisturbed(address, bucket, "whole/scores.zarr")) != "well":
        raise RuntimeError(
            f"a run to which nothing happens ended {ended}: the machine is too busy for {_READ_TIMEOUT_S} s"
        )
    files = _in_bucket(bucket, "whole/scores.zarr")
    found: dict[str, Any] = {"tried": 0, "violations": [], "more": {"ended": {}, "silent wrong results": 0}}
    for turn in count():
        if found["tried"] >= at_least:
            return found
        _run(bucket, proxy, fault, address, f"out-{turn}/scores.zarr", files, found)
    raise AssertionError("unreachable")


def _run(
    bucket: Bucket, proxy: Proxy, fault: str, source: str, key: str, files: dict[str, bytes], found: dict[str, Any]
) -> None:
    """One output, from the first attempt to the last."""
    for attempt in range(_ATTEMPTS + 1):
        method, spoil = FAULTS[fault]
        if attempt < _ATTEMPTS:
            rule = proxy.spoil(method, "", spoil, times=_MOST, chance=_CHANCE)
            ended = _score(source, bucket.url(key))
            proxy.forget()
            found["tried"] += rule.met
        else:
            ended = _undisturbed(source, bucket, key)
        found["more"]["ended"][ended] = found["more"]["ended"].get(ended, 0) + 1
        there = _in_bucket(bucket, key)
        if "zarr.json" in there and there != files:
            found["more"]["silent wrong results"] += 1
            found["violations"].append(f"{fault}: {key} has other bytes after attempt {attempt}, which ended: {ended}")
        _forget_lease(bucket, key)
    if ended != "well" or there != files:
        found["violations"].append(f"{fault}: {key}: the last attempt ended: {ended}")


def _undisturbed(source: str, bucket: Bucket, key: str) -> str:
    """How a run ends to which nothing happens; again where a busy machine did not answer in time."""
    for _ in range(_UNDISTURBED_ATTEMPTS):
        if (ended := _score(source, bucket.url(key))) != "with exit 75":
            break
        _forget_lease(bucket, key)
    return ended


def _score(source: str, output: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            score(source, output, columns=_COLUMNS, threads=2)
        except PipelineError as error:
            return f"with exit {error.exit_code}"
    return "well"


def _in_bucket(bucket: Bucket, key: str) -> dict[str, bytes]:
    return {found.removeprefix(f"{key}/"): bucket.get(found) for found in bucket.all_keys(f"{key}/")}


def _forget_lease(bucket: Bucket, key: str) -> None:
    """As two minutes do."""
    if f"{key}.job/lock" in bucket.all_keys(f"{key}.job/"):
        bucket.remove(f"{key}.job/lock")


@contextmanager
def impatient() -> Iterator[None]:
    """Waits are short, as the store of a test needs none."""
    object_store._file_system.cache_clear()
    with (
        patch.object(object_store, "_READ_TIMEOUT_S", _READ_TIMEOUT_S),
        patch.object(object_store, "_ATTEMPTS", 1),
        patch.object(retrying, "FIRST_WAIT_S", 0.001),
    ):
        yield
    object_store._file_system.cache_clear()


def campaign(*, at_least: int) -> dict[str, Any]:
    """All faults, so many of each."""
    total: dict[str, Any] = {"tried": 0, "violations": [], "more": {}}
    with served() as port, tempfile.TemporaryDirectory() as folder, impatient():
        proxy = Proxy(port)
        os.environ.update(settings(proxy.url, Path(folder)))
        for number, fault in enumerate(FAULTS):
            place = Path(folder, str(number))
            place.mkdir()
            bucket = Bucket.made(f"bucket-{number}", port)
            found = spoilt(bucket, proxy, fault, place, at_least=at_least)
            total["tried"] += found["tried"]
            total["violations"] += found["violations"]
            total["more"][fault] = {"tried": found["tried"], **found["more"]}
        proxy.close()
    return total


def main() -> None:
    random.seed(0)
    sys.stdout.write(json.dumps(campaign(at_least=int(sys.argv[1])), indent=2) + "\n")


if __name__ == "__main__":
    main()
