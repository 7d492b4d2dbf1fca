"""The directory that everything of one run lives in, and how nothing of it stays behind.

Every process of a run (with pytest-xdist there are several) holds a shared ``flock`` on the directory; the last one
out removes it. A directory that nobody holds was left by a run that was killed: the next run sweeps it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_iopbackup.errors import IopError, MachineError
from pytest_iopbackup.stack import docker, leftovers, mounts
from pytest_iopbackup.stack.host import account

_NAME = re.compile(r"iop-[0-9a-f]{8}")
_OWNER = "owner.json"
_SOFTWARE = "pytest-iopbackup"
KEPT = docker.KEPT
NEEDED_BYTES = 768 << 20
"""For a template, two stacks beside each other and their repositories, at 2,000 users."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a killed run had left."""

    directory: Path
    processes: tuple[leftovers.Leftover, ...]


def sweep(base: Path) -> tuple[Swept, ...]:
    """Remove what killed runs left in ``base``: their processes, shared memory and directories. Kept stacks stay."""
    swept = []
    for directory in sorted(base.glob("iop-*")):
        with contextlib.suppress(FileNotFoundError), _exclusive(directory) as ours:
            if not ours:
                continue
            if _signed(directory):
                swept.append(Swept(directory, _clear(directory)))
            else:
                with contextlib.suppress(OSError):  # empty: killed before it could sign, or what it kept is gone
                    directory.rmdir()
    return tuple(swept)


def keep(stack: Path) -> None:
    """Leave one stack's directory in place when its run ends."""
    text = "Kept on request (--iop-keep). Delete this directory when it is no longer needed.\n"
    with contextlib.suppress(FileNotFoundError):
        project = (stack / docker.PROJECT_FILE).read_text(encoding="utf-8")
        text += f"""Its containers are stopped, its volumes are there:
    docker compose --project-name {project} start
    docker compose --project-name {project} exec database psql
Before you delete this directory:
    docker compose --project-name {project} down --volumes
"""
    (stack / KEPT).write_text(text, encoding="utf-8")


def _signed(directory: Path) -> bool:
    """Whether a run of ours is or was at work there; one that ended in order and kept a stack took its name away."""
    try:
        return _SOFTWARE.encode() in (directory / _OWNER).read_bytes()
    except OSError:
        return False


def _clear(directory: Path) -> tuple[leftovers.Leftover, ...]:
    """End a run's processes, undo its mounts and delete its directory, except for kept stacks; return the processes.

    The signature goes last: whoever is killed in the midst of this leaves a directory that the next sweep takes up.
    """
    mounts.thaw(directory)  # first: nothing ends a process that waits for a frozen file system
    left = leftovers.end(directory)
    if mounts.undo(directory):  # takes rights that we lack; to delete would be to follow into what is mounted
        return left
    try:
        docker.remove_projects(directory)
    except IopError:  # Docker is away: this stays, so that a later sweep finds it
        return left
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name == _OWNER):
        if not (entry / KEPT).exists():
            _remove(entry)
    with contextlib.suppress(OSError):  # not empty: a kept stack
        directory.rmdir()
    return left


@contextlib.contextmanager
def _exclusive(directory: Path) -> Iterator[bool]:
    """Hold the directory alone; gives False where it is not ours or somebody else holds it."""
    status = directory.lstat()
    if not _NAME.fullmatch(directory.name) or status.st_uid not in {os.geteuid(), account().uid}:
        yield False
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


class Workspace:
    """The directory of one run; processes that name the same ``run`` share it."""

    def __init__(self, base: Path, run: str | None = None) -> None:
        self.path = base / f"iop-{(run or secrets.token_hex(4))[:8]}"
        self._descriptor = self._enter()
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _enter(self) -> int:
        """Make the directory or join it, and hold it. Retried when the last one out removed it meanwhile."""
        while True:
            try:
                self.path.mkdir(mode=0o700)
                account().own(self.path)
            except FileExistsError:
                pass
            except OSError as error:
                raise MachineError(
                    f"cannot make a directory in {self.path.parent}: {error.strerror}",
                    hint="choose another place with --iop-work-dir=DIR, or set TMPDIR",
                ) from error
            try:
                descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == self.path.stat().st_ino:
                    return descriptor
            os.close(descriptor)

    def _check(self) -> None:
        """Sign the directory, and see that the unprivileged user can write there and has space."""
        try:
            note = self.path / f"{_OWNER}.{os.getpid()}"
            note.write_text(json.dumps({"software": _SOFTWARE, "pid": os.getpid()}) + "\n")
            note.replace(self.path / _OWNER)
        except OSError as error:
            raise _no_space(self.path.parent, error) from error
        probe = subprocess.run(
            ["test", "-w", str(self.path)], check=False, capture_output=True, cwd="/", **account().popen_arguments
        )
        if probe.returncode != 0:
            raise MachineError(
                f"user '{account().name}', who runs the stack, cannot write in {self.path.parent}",
                hint="choose a directory that this user may enter: --iop-work-dir=DIR, or TMPDIR",
            )
        if shutil.disk_usage(self.path).free < NEEDED_BYTES:
            raise _no_space(self.path.parent)

    def close(self) -> tuple[leftovers.Leftover, ...]:
        """Leave; the last one out removes the directory, kept stacks excepted.

        Returns processes that should have ended before.
        """
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ()
        else:
            return _clear(self.path)
        finally:
            os.close(self._descriptor)


def _remove(path: Path) -> None:
    """Delete a tree, also where a test has taken permissions away; gone already is well."""

    def repair(_function: object, name: str, _error: object) -> None:
        with contextlib.suppress(OSError):
            Path(name).parent.chmod(0o700)
            Path(name).chmod(0o700)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=repair)
    else:
        path.unlink(missing_ok=True)


def _no_space(base: Path, error: OSError | None = None) -> MachineError:
    if error is not None and error.errno != errno.ENOSPC:
        return MachineError(f"cannot write in {base}: {error.strerror}", hint="choose another --iop-work-dir=DIR")
    free = shutil.disk_usage(base).free >> 20
    return MachineError(
        f"{base} has {free} MB free; a local stack needs about {NEEDED_BYTES >> 20} MB",
        hint="make room there, or choose another place with --iop-work-dir=DIR or TMPDIR",
    )
