"""What a place keeps in OUTPUT.job while it builds an output: the stage, and notes that tell what is ours to remove.

OUTPUT.job may be a folder of somebody else's. What no run has made is refused before anything is cleared.
"""

import os
from pathlib import Path

from softmax_dask_pipelines import storage
from softmax_dask_pipelines.errors import OutputExistsError
from softmax_dask_pipelines.sinks import job_folder


class JobFiles:
    """Where they are, and whether they are ours to clear."""

    def __init__(self, output: Path) -> None:
        self.folder = job_folder(output)
        self.stage = self.folder / "stage"
        # Names the new folder, in the stage until it is published: what it names is ours to remove.
        self.staged = Note(self.folder / "staged")
        # Names the new folder before a swap. After a crash that tells new from old, whichever of them
        # the stage holds; nothing inside an output could, all its bytes being the plan's.
        self.swap = Note(self.folder / "swap", beside="old")
        self.aside = self.swap.folder / "old"
        # Names the output that is being built in place: what it names is ours to remove.
        self.unfinished = Note(self.folder / "unfinished")
        self._output = output

    def is_ours(self) -> bool:
        """Whether all that is to be cleared was made by a run; OUTPUT.job may be somebody's own folder."""
        return self._foreign() is None

    def require_ours(self) -> None:
        """Refuse what only has our names."""
        path = self._foreign()
        if path is not None:
            raise OutputExistsError(
                f"{path}: was not left there by a run that is known; expected nothing of that name beside the "
                "output. Move it away, or choose another path for the output."
            )

    def restore_old(self) -> None:
        """Undo a swap by renames that stopped after the first of them."""
        if self.aside.exists() and not os.path.lexists(self._output):
            storage.rename(self.aside, self._output)

    def clear_stage(self) -> None:
        """Remove the stage, and what tells whose it is."""
        # The notes go last: without them, an old output in the stage would pass for a new one, or for a stranger's.
        storage.remove(self.stage)
        storage.remove(self.aside)
        storage.remove(self.swap.folder)
        storage.remove(self.staged.folder)

    def clear(self) -> None:
        """Remove all that a run needs before its output is published."""
        self.clear_stage()
        storage.remove(self.unfinished.folder)
        storage.remove_if_empty(self.folder)

    def _foreign(self) -> Path | None:
        """A path that is to be cleared and that no run has made."""
        with storage.plain_errors(self.folder):
            found = [note.folder for note in (self.staged, self.swap, self.unfinished) if not note.is_ours()]
            if not self._stage_is_ours():
                found.append(self.stage)
        return found[0] if found else None

    def _stage_is_ours(self) -> bool:
        # After a swap the stage holds the old output.
        return not holds_anything(self.stage) or self.staged.names(self.stage) or self.swap.names(self._output)


class Note:
    """Names one file or folder by its inode, which stays when it is renamed."""

    def __init__(self, folder: Path, *, beside: str = "") -> None:
        self.folder = folder
        """Holds the note, what a crash leaves of one, and perhaps what is named `beside`."""
        self._file = folder / "inode"
        self._beside = beside

    def write(self, path: Path) -> None:
        """Name what is at `path`, durably."""
        storage.make_folder(self.folder)
        storage.put(self._file, [_inode(path).encode()])
        storage.sync_folder(self.folder)

    def names(self, path: Path) -> bool:
        """Whether what is at `path` now is what the note names."""
        return self._file.exists() and os.path.lexists(path) and self._file.read_text() == _inode(path)

    def is_ours(self) -> bool:
        """Whether the folder holds nothing but a note, or what was there with one."""
        if not holds_anything(self.folder):
            return True
        if not self.folder.is_dir():
            return False
        others = [name for name in os.listdir(self.folder) if not name.startswith(self._file.name)]
        return not others or (others == [self._beside] and self._file.exists())


def holds_anything(path: Path) -> bool:
    """Whether there is something at `path`; an empty folder is nothing."""
    return os.path.lexists(path) and not _is_empty_folder(path)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def _inode(path: Path) -> str:
    status = os.lstat(path)
    return f"{status.st_dev}:{status.st_ino}"
