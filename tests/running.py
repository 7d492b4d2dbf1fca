"""Real pytest runs as child processes, and what they leave behind: found without the package's own code."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_iopbackup.stack.workspace import sweep

# Its steps are short, but each is there: what a signal hits differs from step to step.
SCENARIO = """\
name: {name}
title: After a mistake, a restore brings back what was there before it
dataset: {{users: 20}}
steps:
  - write: {{transactions: 20}}
  - mark: here
  - mistake: {{sql: DELETE FROM identity.membership}}
  - restore: {{to: here, by: time}}
  - expect: {{rows: {mark}}}
"""


def write_scenario(folder: Path, name: str) -> Path:
    """Write a small scenario that passes."""
    path = folder / f"{name}.yaml"
    path.write_text(SCENARIO.format(name=name, mark="here"))
    return path


@contextlib.contextmanager
def work_directory() -> Iterator[Path]:
    """Give a directory whose path is short enough for Unix sockets and which the unprivileged user may enter."""
    path = Path(tempfile.mkdtemp(prefix="t-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        while found := [name for name in mounted(path) if "/" in name]:  # or what is mounted would be deleted
            place = found[-1].encode().decode("unicode_escape")  # the mount table writes a space as \040
            subprocess.run(["/usr/sbin/fsfreeze", "--unfreeze", place], check=False, capture_output=True)
            subprocess.run(["umount", "--lazy", place], check=True)
        shutil.rmtree(path, ignore_errors=True)


class Run:
    """A Python module run in a process group of its own, as a shell starts it; its output is read as it comes."""

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        base: Path,
        python: str | Path = sys.executable,
        terminal: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "IOP_"))}
        inherited.pop("CI", None)
        self._base = base
        reading, writing = pty.openpty() if terminal else os.pipe()
        self._process = subprocess.Popen(
            [python, "-m", *arguments],
            cwd=cwd,
            env={**inherited, "TMPDIR": str(base), "TERM": "xterm", "COLUMNS": "200", **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            start_new_session=True,
        )
        os.close(writing)
        self._changed = threading.Condition()
        self._output = ""
        self._over = False
        self._reader = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._reader.start()

    def _read(self, descriptor: int) -> None:
        block = b"\n"
        while block:
            try:
                block = os.read(descriptor, 4096)
            except OSError:  # a terminal that nobody writes to any more
                block = b""
            with self._changed:
                self._output += block.decode(errors="replace")
                self._over = not block
                self._changed.notify_all()
        os.close(descriptor)

    @property
    def output(self) -> str:
        """What was printed so far."""
        with self._changed:
            return self._output

    def await_output(self, text: str, limit: float = 90) -> None:
        """Wait until ``text`` was printed."""
        with self._changed:
            self._changed.wait_for(lambda: text in self._output or self._over, limit)
            assert text in self._output, f"{text!r} was not printed within {limit:g} s:\n{self._output}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal: as a terminal does with Ctrl-C, to the whole group; any other to the process alone."""
        if number is signal.SIGINT:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)

    def end(self, limit: float = 90) -> int:
        """Wait for the run's end and return its exit code."""
        try:
            code = self._process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {limit:g} s:\n{self.output}") from None
        self._reader.join(10)
        return code

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
            sweep(self._base)


@dataclass(frozen=True)
class Remains:
    """What there is of runs in a directory: theirs in it, processes, shared memory of their servers, mounts."""

    directories: frozenset[str]
    processes: frozenset[str]
    segments: frozenset[tuple[int, int]]
    """System V shared memory: identifier and the process that made it."""
    mounts: frozenset[str] = frozenset()
    """Where something is mounted, and loop devices."""

    def __bool__(self) -> bool:
        return bool(self.directories or self.processes or self.segments or self.mounts)


def remains(base: Path, *, segments: frozenset[tuple[int, int]] = frozenset()) -> Remains:
    """Look at what there is; ``segments`` are those seen before, whose servers' directories may be gone by now."""
    noted = set(segments)
    for note in base.glob("iop-*/*/data/postmaster.pid"):
        with contextlib.suppress(OSError, IndexError, ValueError):  # being written, or gone meanwhile
            lines = note.read_text().splitlines()
            noted.add((int(lines[6].split()[1]), int(lines[0])))
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    existing = {(int(row[1]), int(row[4])) for row in rows}
    return Remains(
        directories=frozenset(entry.name for entry in base.glob("iop-*")),
        processes=frozenset(_processes(os.fsencode(base))),
        segments=frozenset(noted & existing),
        mounts=frozenset(mounted(base)),
    )


def mounted(base: Path) -> Iterator[str]:
    """Name every mount in a directory, and every loop device whose file is there."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4].startswith(f"{base}/"):
            yield line.split()[4]
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # detached meanwhile
            if device.read_text().startswith(f"{base}/"):
                yield device.parents[1].name


def _processes(needle: bytes) -> Iterator[str]:
    """Name every live process that has the directory in its arguments, its environment or as its place."""
    ours = {os.getpid(), os.getppid()}
    readers: tuple[Callable[[Path], bytes], ...] = (
        lambda entry: (entry / "cmdline").read_bytes(),
        lambda entry: (entry / "environ").read_bytes(),
        lambda entry: os.fsencode((entry / "cwd").readlink()),
    )
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in ours:
            continue
        for reader in readers:
            with contextlib.suppress(OSError):
                if needle in reader(entry) and "State:\tZ" not in (entry / "status").read_text():
                    yield f"{entry.name} {(entry / 'comm').read_text().strip()}"
                    break
