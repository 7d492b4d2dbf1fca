"""Finds and undoes what is mounted below a directory, so that the directory can be deleted and nothing else is.

A mount would outlive its directory's run, hold a loop device, and lead whoever deletes the directory into what is
mounted there. A file system that is frozen also holds its writers: not even SIGKILL ends them before it is thawed.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_BLOCK_DEVICES = Path("/sys/block")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount; ``device`` is its file system's number, such as ``7:0``."""

    point: Path
    device: str


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop device and its number."""

    path: Path
    device: str


def below(directory: Path) -> tuple[Mount, ...]:
    """Return what is mounted at or below a directory, in the order in which it has to be undone."""
    place = directory.resolve()
    found = [mount for mount in _mounts() if mount.point == place or place in mount.point.parents]
    last = sorted(enumerate(found), key=lambda item: (len(item[1].point.parts), item[0]), reverse=True)
    return tuple(mount for _, mount in last)


def thaw(directory: Path) -> None:
    """Thaw file systems in files below a directory, also those that are mounted elsewhere; well if none is frozen."""
    devices = {loop.device for loop in _loops(directory)}
    for mount in _mounts() if devices else ():
        if mount.device in devices:
            _run("fsfreeze", "--unfreeze", str(mount.point))


def undo(directory: Path) -> tuple[Path, ...]:
    """Undo every mount and loop device below a directory; return where something is mounted still: not ours to undo."""
    thaw(directory)
    while mounts := below(directory):
        # Lazily: whoever has a file open in it keeps that, and nobody gets in any more.
        if not _run("umount", "--lazy", "--no-canonicalize", str(mounts[0].point)):
            break
    for loop in _loops(directory):
        _run("losetup", "--detach", str(loop.path))
    return tuple(mount.point for mount in below(directory))


def _mounts() -> Iterator[Mount]:
    """Yield every mount that we see, the oldest first (proc(5), ``/proc/pid/mountinfo``)."""
    for line in _MOUNTS.read_bytes().decode(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        yield Mount(Path(point), fields[2])


def _loops(directory: Path) -> Iterator[Loop]:
    """Yield the loop devices whose file lies, or lay, below a directory."""
    place = directory.resolve()
    for entry in sorted(_BLOCK_DEVICES.glob("loop*/loop/backing_file")):
        with contextlib.suppress(OSError):  # detached meanwhile
            file = Path(entry.read_text().rstrip("\n").removesuffix(" (deleted)"))
            device = entry.parents[1]
            if place in file.parents:
                yield Loop(Path("/dev", device.name), (device / "dev").read_text().strip())


def _run(*argv: str) -> bool:
    environment = {**os.environ, "PATH": os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"}
    with contextlib.suppress(FileNotFoundError):  # without util-linux nothing of ours is mounted either
        return subprocess.run(argv, env=environment, check=False, capture_output=True).returncode == 0
    return False
