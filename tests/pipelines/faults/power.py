"""A disk that loses power: ext4 in a file, shut down without writing back what is not synced (root, Linux)."""

import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path

_SHUTDOWN = (2 << 30) | (4 << 16) | (ord("X") << 8) | 125
"""EXT4_IOC_SHUTDOWN"""
_NO_LOG_FLUSH = 2


class LoopDisk:
    """Mounted while the block runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._image = folder / "disk", folder / "disk.img"

    def __enter__(self) -> "LoopDisk":
        self.folder.mkdir(parents=True)
        _call("truncate", "-s", "48M", self._image)
        _call("mkfs.ext4", "-q", "-F", self._image)
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        self._unmount()

    def cut(self) -> None:
        """The power is gone. What was not synced is lost, unless the file system happened to write it."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        os.close(descriptor)

    def cut_after_a_stranger_synced(self) -> None:
        """As `cut`; but just before, somebody's fsync has written the names of files, not what is in them."""
        descriptor = os.open(self.folder / "stranger", os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, b"x")
        os.fsync(descriptor)
        os.close(descriptor)
        self.cut()

    def come_back(self) -> None:
        """Mount what has survived."""
        self._unmount()
        self._mount()

    def _mount(self) -> None:
        _call("mount", "-o", "loop", self._image, self.folder)

    def _unmount(self) -> None:
        for _ in range(50):
            if subprocess.run(["umount", str(self.folder)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise OSError(f"{self.folder} stays mounted")


def why_not(folder: Path) -> str | None:
    """Why power cannot be cut here; None where it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "needs root"
    try:
        with LoopDisk(folder) as disk:
            disk.cut()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no loop mount of ext4 that can be shut down ({error})"
    return None


def _call(*words: object) -> None:
    subprocess.run([str(word) for word in words], capture_output=True, check=True)
