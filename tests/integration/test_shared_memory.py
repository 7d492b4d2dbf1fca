"""Shared memory of servers that were killed, also of the one that initdb runs and that leaves no note of it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack import leftovers
from pytest_iopbackup.stack.binaries import find_binaries
from pytest_iopbackup.stack.host import account, spawn

pytestmark = pytest.mark.integration


def mapped(directory: Path) -> set[str]:
    """Name the shared memory that processes of a stack have mapped: System V by identifier, POSIX by path."""
    found = set()
    for process in leftovers.find(directory):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
                fields = line.split()
                if "/SYSV" in line:
                    found.add(fields[4])
                elif "/dev/shm/PostgreSQL." in line:
                    found.add(fields[5])
    return found


def posix(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("/dev/shm/")}


def existing() -> set[str]:
    system_v = {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}
    return system_v | {str(path) for path in Path("/dev/shm").iterdir()}


def test_an_initdb_that_is_ended_in_its_midst_leaves_no_shared_memory(base: Path) -> None:
    directory = base / "iop-deadbeef" / "b-1"
    directory.mkdir(parents=True)
    for path in (directory.parent, directory):
        account().own(path)
    programs = find_binaries().postgresql
    initdb = spawn(
        [str(programs / "initdb"), "--pgdata", str(directory / "data"), "--auth=trust", "--no-sync"],
        cwd=directory,
        env={**os.environ, "LANG": "C.UTF-8", leftovers.MARKER: str(directory)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        used = wait_until(lambda: posix(mapped(directory)) or None, limit=10, what="initdb's server to map memory")
    finally:
        leftovers.end(directory)
        initdb.wait(10)
    assert not used & existing()
