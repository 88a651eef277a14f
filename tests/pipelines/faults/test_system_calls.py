"""What the system is asked for, in the order that the protocol promises: told by strace, and spoilt by it."""

import re
from collections.abc import Sequence

import pytest

from tests.pipelines import dumps
from tests.pipelines.command import softmax_dask
from tests.pipelines.faults import tracing
from tests.pipelines.faults.histories import tree_of
from tests.pipelines.faults.tracing import Call

pytestmark = pytest.mark.skipif(tracing.why_not() is not None, reason=str(tracing.why_not()))

RENAMES, LINKS = ("rename", "renameat", "renameat2"), ("link", "linkat")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return dumps.zarr_group(tmp_path_factory.mktemp("source") / "in.zarr", dumps.logits(), chunks=(10, 5))


@pytest.fixture(scope="module", params=["zarr", "parquet"])
def traced(request, tmp_path_factory, source):
    """The calls of a run, and its output."""
    folder = tmp_path_factory.mktemp("traced")
    output = folder / f"out.{request.param}"
    done = tracing.run("score", source, output, "--quiet", log=folder / "log")
    assert done.returncode == 0, done.stderr
    return tracing.calls(folder / "log", folder), output


def named(calls: Sequence[Call], names: Sequence[str]) -> list[Call]:
    return [call for call in calls if call.name in names]


def last(calls: Sequence[Call], name: str, path: str, before: int) -> Call | None:
    """The last call of that name and path that had ended by then."""
    found = [call for call in calls if (call.name, call.path) == (name, path) and call.ended < before]
    return found[-1] if found else None


def decision(calls: Sequence[Call]) -> Call:
    """The link that gives the commit its name."""
    (found,) = [call for call in named(calls, LINKS) if re.search(r"/commit-\d+\.json$", call.to)]
    return found


def objects(calls: Sequence[Call]) -> list[Call]:
    """Renames that give an object of a partition its name."""
    return [call for call in named(calls, RENAMES) if "/scratch-" in call.path]


def counted(calls: Sequence[Call]) -> list[Call]:
    """Renames that give what a partition has counted its name; one that a power cut takes is counted again."""
    return [call for call in named(calls, RENAMES) if "/counts-" in call.path]


def test_every_object_is_synced_before_it_has_its_name_and_not_written_after(traced):
    calls, _ = traced

    assert len(objects(calls)) > 10
    for renamed in objects(calls):
        synced = last(calls, "fsync", renamed.path, renamed.begun)
        assert synced is not None, renamed
        writes = [call.ended for call in calls if (call.name, call.path) == ("write", renamed.path)]
        assert writes or renamed.path.endswith(".parquet.tmp")  # those Arrow writes
        assert all(written < synced.begun for written in writes)


def test_a_line_of_the_journal_comes_after_the_names_of_all_its_objects(traced):
    calls, _ = traced
    lines = [call for call in calls if call.name == "write" and "journal-" in call.path and "objects" in call.to]

    assert len(lines) > 5
    ends = {re.split(r"/(?:stage|counts)-[^/]*/", call.to)[1]: call.ended for call in objects(calls) + counted(calls)}
    for line in lines:
        keys = re.findall(r'\[\\"([^"\\]+)\\",', line.to)
        assert keys
        assert [key for key in keys if ends[key] > line.begun] == []


def test_the_journal_is_synced_after_its_last_line_and_before_the_decision(traced):
    calls, _ = traced
    line = [call for call in calls if call.name == "write" and "journal-" in call.path][-1]

    synced = last(calls, "fsync", line.path, decision(calls).begun)

    assert synced is not None
    assert line.ended < synced.begun


def test_every_folder_with_a_new_name_is_synced_before_the_decision(traced):
    calls, _ = traced
    decided = decision(calls).begun
    newest: dict[str, int] = {}
    for renamed in objects(calls):
        folder = renamed.to.rpartition("/")[0]
        newest[folder] = max(newest.get(folder, 0), renamed.ended)

    assert newest
    for folder, ended in newest.items():
        synced = last(calls, "fsync", folder, decided)
        assert synced is not None, folder
        assert synced.begun > ended


def test_the_decision_is_synced_its_name_too_and_then_the_output_has_its_name(traced):
    calls, output = traced
    decided = decision(calls)
    (published,) = [call for call in named(calls, RENAMES) if call.to.startswith(str(output)) and ".job" not in call.to]

    assert last(calls, "fsync", decided.path, decided.begun) is not None
    folder = last(calls, "fsync", decided.to.rpartition("/")[0], published.begun)
    assert folder is not None
    assert folder.begun > decided.ended
    above = published.to.rpartition("/")[0]
    assert [call for call in calls if (call.name, call.path) == ("fsync", above) and call.begun > published.ended]


FAULTS = [
    ("fsync", "EIO", "when=5"),
    ("fsync", "EIO", "when=18+"),
    pytest.param("fsync", "EINTR", "when=3..40+4", marks=pytest.mark.long),
    ("write", "ENOSPC", "when=8+"),
    (",".join(RENAMES), "EACCES", "when=4+"),
    (",".join(LINKS), "EMFILE", "when=1"),
]
"""Calls, what they answer, and which of each thread: N is one, N+ all from there, N..M+S every S-th of some."""


@pytest.mark.usefixtures("small_plan")
@pytest.mark.parametrize(("names", "error", "when"), FAULTS)
@pytest.mark.parametrize("suffix", ["zarr", pytest.param("parquet", marks=pytest.mark.long)])
def test_a_system_that_says_no_leaves_nothing_half_and_the_next_run_completes_it(
    names, error, when, suffix, source, tmp_path
):
    output, whole = tmp_path / f"out.{suffix}", tmp_path / f"whole.{suffix}"
    assert softmax_dask("score", source, whole, "--quiet").code == 0
    inject = ("-e", f"inject={names}:error={error}:{when}")

    spoilt = tracing.run("score", source, output, "--quiet", log=tmp_path / "log", more=inject)

    assert "(INJECTED)" in (tmp_path / "log").read_text()
    assert spoilt.returncode in (0, 2, 75), spoilt.stderr
    assert "Traceback" not in spoilt.stderr
    assert not output.exists() or tree_of(output) == tree_of(whole)
    assert softmax_dask("score", source, output, "--quiet").code == 0
    assert tree_of(output) == tree_of(whole)
