"""Where an output is built, and the step that makes it visible.

`Stage`: beside the output, then one rename or swap. `InPlace`: under the final names,
which nobody can open until one document, written last, is there.

Every step may be the last before a crash: each place tells from what it finds how far it got.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.errors import OutputExistsError
from softmax_dask_pipelines.sinks.job_files import JobFiles, holds_anything


class Place(Protocol):
    """A folder in which an output is built."""

    @property
    def folder(self) -> Path:
        """What is written here becomes the output."""

    def prepare(self) -> None:
        """Make `folder`, empty."""

    def is_published(self) -> bool:
        """Whether the output is visible, and whole."""

    def publish(self) -> None:
        """Make the output visible, and clear what was needed for that."""

    def discard(self) -> None:
        """Remove what is not published."""


class Stage:
    """Builds in OUTPUT.job/stage; becomes the output in one rename, or in one swap with the old output."""

    def __init__(self, output: Path, *, replace: bool) -> None:
        self._job = JobFiles(output)
        self.folder = self._job.stage
        self._output, self._replace = output, replace

    def prepare(self) -> None:
        """Make the stage, empty; an old output is left as it is, and so is a stage that is not ours."""
        self._job.require_ours()
        self._job.restore_old()
        if not self._replace:
            require_absent(self._output)
        elif not self._job.unfinished.names(self._output):
            require_output(self._output)
        self._job.clear_stage()
        storage.make_folder(self.folder)
        self._job.staged.write(self.folder)

    def is_published(self) -> bool:
        """Whether the output is in its place; what the stage then holds is old."""
        if not os.path.lexists(self._output):
            return False
        return not self.folder.exists() or self._job.swap.names(self._output)

    def publish(self) -> None:
        """Rename the stage to the output, or swap the two."""
        if not self.is_published():
            if self._replace and os.path.lexists(self._output):
                self._job.swap.write(self.folder)
                storage.exchange(self.folder, self._output, aside=self._job.aside)
            else:
                require_absent(self._output)
                storage.rename(self.folder, self._output)
        self._job.clear()

    def discard(self) -> None:
        """Remove the stage; an old output stays."""
        if not self._job.is_ours():
            return
        self._job.restore_old()
        self._job.clear_stage()
        storage.remove_if_empty(self._job.folder)


class InPlace:
    """Builds in the output itself, which cannot be opened before `last`, its root document, is there."""

    def __init__(self, output: Path, *, last: str) -> None:
        self._job = JobFiles(output)
        self.folder = output
        self._last = output / last

    def prepare(self) -> None:
        """Make the output's folder, empty; refused where it holds anything but an unfinished run's files."""
        self._job.require_ours()
        self._job.restore_old()
        self._remove_unfinished()
        require_absent(self.folder)
        self._job.clear()
        storage.make_folder(self.folder)
        self._job.unfinished.write(self.folder)

    def is_published(self) -> bool:
        """Whether the last document is there."""
        return self._last.exists()

    def publish(self) -> None:
        """The last document is there: make its name durable, and the output no longer unfinished."""
        storage.sync_folder(self.folder)
        self._job.clear()

    def discard(self) -> None:
        """Remove the output's folder, unless it is published or not ours."""
        if not self._job.is_ours():
            return
        self._job.restore_old()
        self._remove_unfinished()
        self._job.clear()

    def _remove_unfinished(self) -> None:
        if not self.is_published() and self._job.unfinished.names(self.folder):
            storage.remove(self.folder)


def require_absent(output: Path) -> None:
    """Refuse a path where there is something; an empty folder is nothing."""
    if not holds_anything(output):
        return
    raise OutputExistsError(
        f"{output}: is there already; expected nothing at the output's path. "
        "Choose another path, or replace it with --replace."
    )


def require_output(path: Path) -> None:
    """Refuse to replace a folder that is no output: it may hold anything."""
    if not path.is_dir() or not holds_anything(path):
        return
    names = os.listdir(path)
    is_zarr = any(name in names for name in ("zarr.json", ".zgroup", ".zarray"))
    is_parquet = all(name.startswith(("commit=", "_", ".")) or name.endswith(".parquet") for name in names)
    if not is_zarr and not is_parquet:
        raise OutputExistsError(
            f"{path}: is a folder with other things than an output in it; expected an output to replace. "
            "Choose another path, or remove the folder yourself."
        )


def seal(folder: Path, folders: Sequence[Path]) -> None:
    """Make the names in `folders` and in `folder` durable, and drop what killed writers left in them."""
    for each in (*folders, folder):
        storage.remove_temporaries(each)
        storage.sync_folder(each)
