"""One bit of a dump or of an output is flipped: who notices? `python -m tests.pipelines.faults.flips N`.

A dump with checksums must be refused, or give the same values as before; one without can only be tried. Of an
output, `verify` must see every bit.
"""

import json
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from softmax_dask_pipelines import score, verify
from softmax_dask_pipelines.errors import DataError, OutputDamagedError
from softmax_dask_pipelines.sources import SourceRequest, open_source
from tests.pipelines import dumps

LOGITS = dumps.logits(200)
_CHUNKS: dict[str, Any] = {"chunks": (50, 5)}


def _zarr(*compressors: Any) -> Callable[[Path], Path]:
    return lambda path: dumps.zarr_array(path / "dump", LOGITS, compressors=compressors or None, **_CHUNKS)


def _parquet(**options: Any) -> Callable[[Path], Path]:
    table = pa.table({"logits": dumps.fixed_lists(LOGITS)})
    return lambda path: dumps.parquet_file(path / "dump.parquet", table, row_group_size=50, **options)


PLAIN: dict[str, Callable[[Path], Path]] = {
    "Zarr, uncompressed": _zarr(),
    "Zarr, zstd": _zarr(ZstdCodec()),
    "Zarr, blosc": _zarr(BloscCodec(cname="lz4")),
    "Parquet, snappy": _parquet(),
    "Parquet, zstd": _parquet(compression="zstd", use_dictionary=False),
}
CHECKED: dict[str, Callable[[Path], Path]] = {
    "Zarr, crc32c": _zarr(Crc32cCodec()),
    "Zarr, zstd with crc32c": _zarr(ZstdCodec(), Crc32cCodec()),
    "Zarr, zstd with its checksum": _zarr(ZstdCodec(checksum=True)),
    "Parquet, page checksums": _parquet(write_page_checksum=True),
}


def of_dumps(folder: Path, *, flips: int) -> dict[str, Any]:
    """So many of each layout."""
    found: dict[str, Any] = {"tried": 0, "violations": [], "more": {}}
    for name, make in (PLAIN | CHECKED).items():
        place = folder / name.replace(", ", "-").replace(" ", "-")
        place.mkdir()
        counts = {"refused": 0, "same values": 0, "other values": 0}
        source = make(place)
        for _ in range(flips):
            counts[_outcome(source)] += 1
        found["tried"] += flips
        found["more"][name] = counts
        if name in CHECKED and counts["other values"]:
            found["violations"].append(f"{name}: {counts['other values']} flipped bits passed for logits")
    return found


def of_outputs(folder: Path, *, flips: int) -> dict[str, Any]:
    """So many of each format."""
    found: dict[str, Any] = {"tried": 0, "violations": [], "more": {}}
    source = dumps.zarr_group(folder / "in.zarr", LOGITS, **_CHUNKS)
    for suffix in ("zarr", "parquet"):
        output = folder / f"out.{suffix}"
        score(source, output, columns=("label", "confidence", "probabilities"), threads=1)
        files = sorted(path for path in output.rglob("*") if path.is_file())
        seen = sum(_is_seen(output, random.choice(files)) for _ in range(flips))
        found["tried"] += flips
        found["more"][f"verify, {suffix}"] = {"seen": seen}
        if seen != flips:
            found["violations"].append(f"verify of {suffix}: {flips - seen} flipped bits were not seen")
        verify(output)
    return found


def _outcome(source: Path) -> str:
    files = [source] if source.is_file() else [path for path in (source / "c").rglob("*") if path.is_file()]
    with _flipped(random.choice(files)):
        try:
            blocks = open_source(SourceRequest(str(source))).read(0, len(LOGITS))
            values = np.concatenate([block.logits for block in blocks])
        except DataError:
            return "refused"
    return "same values" if _are_same(values, LOGITS) else "other values"


def _are_same(values: NDArray[Any], expected: NDArray[Any]) -> bool:
    return values.shape == expected.shape and values.tobytes() == expected.tobytes()


def _is_seen(output: Path, file: Path) -> bool:
    with _flipped(file):
        try:
            verify(output)
        except OutputDamagedError:
            return True
    return False


@contextmanager
def _flipped(file: Path) -> Iterator[None]:
    """One bit of a file, while the block runs."""
    whole = file.read_bytes()
    data, bit = bytearray(whole), random.randrange(8 * len(whole))
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)
    yield
    file.write_bytes(whole)


def campaign(*, flips: int) -> dict[str, Any]:
    """Of dumps and of outputs."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (dumps_at := Path(folder, "dumps")).mkdir()
        (outputs_at := Path(folder, "outputs")).mkdir()
        first, second = of_dumps(dumps_at, flips=flips), of_outputs(outputs_at, flips=flips)
    return {
        "tried": first["tried"] + second["tried"],
        "violations": first["violations"] + second["violations"],
        "more": first["more"] | second["more"],
    }


def main() -> None:
    random.seed(0)
    sys.stdout.write(json.dumps(campaign(flips=int(sys.argv[1])), indent=2) + "\n")


if __name__ == "__main__":
    main()
