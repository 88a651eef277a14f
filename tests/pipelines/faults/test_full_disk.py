"""A file system that is really full: nothing half is seen, what is done stays, and with more room the run goes on."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.command import softmax_dask
from tests.pipelines.faults.histories import tree_of

AGAIN = 75


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """One of a few pages, in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(line, capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root alone, and not in every container")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def enlarge(disk: Path, kilobytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(disk)], check=True)


@pytest.mark.usefixtures("small_plan")
@pytest.mark.parametrize("suffix", ["zarr", "parquet"])
def test_with_a_little_more_room_each_time_it_goes_on_until_it_is_complete(suffix, source, disk, tmp_path):
    output, whole = disk / f"out.{suffix}", tmp_path / f"whole.{suffix}"
    assert softmax_dask("score", source, whole, "--quiet").code == 0
    codes = []

    for kilobytes in range(16, 1024, 16):
        enlarge(disk, kilobytes)
        outcome = softmax_dask("score", source, output, "--quiet")
        codes.append(outcome.code)
        if not codes[-1]:
            break
        assert not output.exists()
        assert "no space left" in outcome.err or "room" in outcome.err
        assert outcome.err.count("Error: ") == 1

    assert len(codes) > 3
    assert set(codes[:-1]) == {AGAIN}
    assert tree_of(output) == tree_of(whole)
