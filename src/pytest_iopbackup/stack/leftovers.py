"""Finds and ends what a stack leaves running, and releases the shared memory of servers that were killed.

Every process of a local stack carries ``IOP_STACK=<its directory>`` in its environment; PostgreSQL's own processes,
which overwrite theirs, have the stack's data directory as their working directory. Nothing else is ever touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pytest_iopbackup.errors import DeadlineError
from pytest_iopbackup.limits import wait_until

MARKER = "IOP_STACK"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A process that belongs to a stack; its start time tells it from a later one with the same id."""

    pid: int
    started: str
    command: str


def find(directory: Path) -> tuple[Leftover, ...]:
    """Return every live process that belongs to a stack in ``directory``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended meanwhile, or belongs to somebody else
                if _belongs(entry, directory):
                    status = (entry / "stat").read_text()
                    fields = status.rpartition(")")[2].split()
                    if fields[0] != "Z":
                        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                        found.append(Leftover(int(entry.name), fields[19], command.strip()))
    return tuple(found)


def end(directory: Path) -> tuple[Leftover, ...]:
    """End every process that belongs to a stack in ``directory`` and release its shared memory; return what was found.

    First in order: SIGQUIT is PostgreSQL's immediate shutdown, which leaves no shared memory behind; bash ignores it,
    but the workers obey SIGTERM; a process that is stopped sees either only after SIGCONT. Then SIGKILL.
    """
    segments = _shared_memory(directory)
    found = find(directory)
    remaining = found
    for numbers, limit in (((signal.SIGTERM, signal.SIGQUIT, signal.SIGCONT), 5.0), ((signal.SIGKILL,), 10.0)):
        for process in remaining:
            with contextlib.suppress(OSError):
                for number in numbers:
                    os.kill(process.pid, number)
        with contextlib.suppress(DeadlineError):
            wait_until(lambda: not find(directory), limit=limit, what="processes to end")
        remaining = find(directory)
        if not remaining:
            break
    for identifier in segments:
        _release(identifier)
    return found


def _belongs(process: Path, directory: Path) -> bool:
    with contextlib.suppress(OSError):
        for variable in (process / "environ").read_bytes().split(b"\0"):
            name, _, value = variable.partition(b"=")
            if name == MARKER.encode():
                return _inside(Path(os.fsdecode(value)), directory)
    is_postgres = (process / "comm").read_text().strip() == "postgres"
    return is_postgres and _inside(Path(str((process / "cwd").readlink()).removesuffix(" (deleted)")), directory)


def _inside(path: Path, directory: Path) -> bool:
    return path == directory or directory in path.parents


def _shared_memory(directory: Path) -> tuple[int, ...]:
    """Return the System V segments that servers below ``directory`` noted in line 7 of ``postmaster.pid``."""
    segments = []
    for note in (*directory.glob("data/postmaster.pid"), *directory.glob("*/data/postmaster.pid")):
        with contextlib.suppress(OSError, IndexError, ValueError):
            segments.append(int(note.read_text().splitlines()[6].split()[1]))
    return tuple(segments)


def _release(identifier: int) -> None:
    """Remove a segment that nobody is attached to any more; PostgreSQL sizes its interlock segment at 56 bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
            _key, shmid, _mode, size, _cpid, _lpid, attached, *_ = line.split()
            if int(shmid) == identifier and attached == "0" and int(size) < 4096:
                subprocess.run(["ipcrm", "-m", shmid], check=False, capture_output=True)
