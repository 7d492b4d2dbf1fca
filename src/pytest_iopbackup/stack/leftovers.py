"""Finds and kills what a stack leaves running, and releases the shared memory of servers that were killed.

Every process of a local stack carries ``IOP_STACK=<its directory>`` in its environment; PostgreSQL's own processes,
which overwrite theirs, have the stack's data directory as their working directory. Nothing else is ever touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_iopbackup.errors import DeadlineError
from pytest_iopbackup.limits import wait_until

MARKER = "IOP_STACK"
SERVICE = "IOP_SERVICE"
"""Names the service that a process belongs to, if it belongs to one; PostgreSQL's own are the database's."""
DATABASE = "database"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A process that belongs to a stack; its start time tells it from a later one with the same id."""

    pid: int
    started: str
    command: str


_SEGMENTS = ("/dev/shm/PostgreSQL.", "/dev/shm/faketime_shm_", "/dev/shm/sem.faketime_sem_")  # noqa: S108 - their place


def find(directory: Path, service: str | None = None) -> tuple[Leftover, ...]:
    """Return every live process that belongs to a stack in ``directory``, or to one ``service`` of it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it ended meanwhile, or belongs to somebody else
                if _belongs(entry, directory, service):
                    status = (entry / "stat").read_text()
                    fields = status.rpartition(")")[2].split()
                    if fields[0] != "Z":
                        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                        found.append(Leftover(int(entry.name), fields[19], command.strip()))
    return tuple(found)


def end(directory: Path) -> tuple[Leftover, ...]:
    """Kill every process that belongs to a stack in ``directory`` and release its shared memory; return what was found.

    They are frozen first, so that none starts another and all shared memory that they use can be seen, and not let go
    again: a server that begins to shut down may still make some, and one that ``initdb`` runs leaves its own behind.
    """
    found = _freeze(directory)
    segments, files = _noted_segments(directory), set[Path]()
    for process in found:
        segments |= _mapped_segments(process)
        files |= _used_files(process)
    _send(found, signal.SIGKILL)
    with contextlib.suppress(DeadlineError):
        wait_until(lambda: not find(directory), limit=10, what="processes to end")
    for identifier in segments:
        _release(identifier)
    for file in files:
        with contextlib.suppress(OSError):
            file.unlink()
    return found


def kill(directory: Path, service: str) -> None:
    """Kill every process of one service of a stack, all frozen first: none sees another die. Raises DeadlineError."""
    _send(_freeze(directory, service), signal.SIGKILL)
    wait_until(lambda: not find(directory, service), limit=10, what=f"the killed processes of the {service} to be gone")


def _freeze(directory: Path, service: str | None = None) -> tuple[Leftover, ...]:
    known: dict[int, Leftover] = {}
    while new := [process for process in find(directory, service) if process.pid not in known]:
        _send(new, signal.SIGSTOP)
        known.update({process.pid: process for process in new})
    return tuple(known.values())


def _send(processes: Iterable[Leftover], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(OSError):
            os.kill(process.pid, number)


def _belongs(process: Path, directory: Path, service: str | None) -> bool:
    with contextlib.suppress(OSError):
        # Not taken apart: every stack that ends looks through all processes of the machine, several times.
        environment = b"\0" + (process / "environ").read_bytes()
        place, theirs = _variable(environment, MARKER), _variable(environment, SERVICE)
        if place and service in {None, theirs}:
            return _inside(Path(place), directory)
    is_postgres = (process / "comm").read_text().strip() == "postgres" and service in {None, DATABASE}
    return is_postgres and _inside(Path(str((process / "cwd").readlink()).removesuffix(" (deleted)")), directory)


def _variable(environment: bytes, name: str) -> str:
    return os.fsdecode(environment.partition(f"\0{name}=".encode())[2].partition(b"\0")[0])


def _inside(path: Path, directory: Path) -> bool:
    return path == directory or directory in path.parents


def _noted_segments(directory: Path) -> set[int]:
    """Return the System V segments that servers below ``directory`` noted in line 7 of ``postmaster.pid``."""
    segments = set()
    for note in (*directory.glob("data/postmaster.pid"), *directory.glob("*/data/postmaster.pid")):
        with contextlib.suppress(OSError, IndexError, ValueError):
            segments.add(int(note.read_text().splitlines()[6].split()[1]))
    return segments


def _mapped_segments(process: Leftover) -> set[int]:
    """Return the System V segments that a process uses: proc(5) gives their identifier as the inode."""
    return {int(inode) for inode, name in _maps(process) if name.startswith("/SYSV")}


def _used_files(process: Leftover) -> set[Path]:
    """Return POSIX segments of PostgreSQL, or of libfaketime, that a process has mapped, or has open to map them."""
    names = {name for _, name in _maps(process)}
    with contextlib.suppress(OSError):
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                names.add(str(descriptor.readlink()))
    return {Path(name) for name in names if name.startswith(_SEGMENTS)}


def _maps(process: Leftover) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            fields = line.split(maxsplit=5)
            if len(fields) == 6:
                yield fields[4], fields[5]


def _release(identifier: int) -> None:
    """Remove a segment that nobody is attached to any more; PostgreSQL sizes its interlock segment at 56 bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
            _key, shmid, _mode, size, _cpid, _lpid, attached, *_ = line.split()
            if int(shmid) == identifier and attached == "0" and int(size) < 4096:
                subprocess.run(["ipcrm", "-m", shmid], check=False, capture_output=True)
