"""A place that becomes a volume, or a directory again, while files are pushed into it: none is lost or half there."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pytest_iopbackup.faults.put_back import put_back_with_wal
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.faults.volumes import Volume
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.stack.binaries import Binaries
from pytest_iopbackup.stack.local import LocalStack
from pytest_iopbackup.stack.local_services import LocalSettings

takes_root = pytest.mark.skipif(os.geteuid() != 0, reason="not run: to mount something takes root")
CONTENT = b"whole" * 1000
ROUNDS = 6


@pytest.fixture
def site(base: Path) -> Site:
    """Give a stack that has never run."""
    stack = LocalStack(base / "s-1", LocalSettings(binaries=Binaries(base, base, base, "", ""), limits=Limits()))
    stack.make_directories()
    return Site(stack, Limits())


def push(path: Path) -> None:
    """Write a file as pgBackRest does: under another name, with its directories if they are not there, then rename."""
    temporary = path.with_name(f"{path.name}.pgbackrest.tmp")
    try:
        file = temporary.open("wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("wb")
    with file:
        time.sleep(0.002)  # what pgBackRest needs to compress a segment
        file.write(CONTENT)
    time.sleep(0.001)
    temporary.rename(path)


@contextmanager
def pushing(directory: Path) -> Iterator[list[Path]]:
    """Push one file after the other, each until that succeeds; gives those that count as archived."""
    done: list[Path] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            path = directory / f"{len(done):08d}"
            with suppress(OSError):
                push(path)
                done.append(path)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()


def damage(done: list[Path]) -> dict[str, int]:
    """Return what is lost (-1), or not whole, with its size."""
    sizes = {path.name: path.stat().st_size if path.exists() else -1 for path in done}
    return {name: size for name, size in sizes.items() if size != len(CONTENT)}


@takes_root
@pytest.mark.parametrize("kind", ["tmpfs", "bind", "read-only"])
def test_a_place_becomes_a_volume_and_back_while_files_are_pushed(site: Site, kind: str) -> None:
    volume = Volume(site, site.stack.places.repository)
    with pushing(volume.place / "archive" / "iop") as done:
        for _ in range(ROUNDS):
            before = len(done)
            if kind == "tmpfs":
                volume.make_tmpfs(room=64 << 20, inodes=4096)
            elif kind == "bind":
                volume.bind()
            else:
                volume.remount_read_only()
            volume.put_back()
            time.sleep(0.02)
            assert damage(done) == {}
            assert len(done) > before
    assert damage(done) == {}


def test_a_directory_is_put_back_while_files_are_pushed(site: Site) -> None:
    repository = site.stack.places.repository
    with pushing(repository / "archive" / "iop") as done:
        for _ in range(ROUNDS):
            site.take_away(repository)
            time.sleep(0.02)
            put_back_with_wal(site, repository, "archive")
            time.sleep(0.02)
    assert damage(done) == {}
    assert len(done) > ROUNDS


def begin(directory: Path) -> Path:
    """Leave a file as a push does that has just opened it: there, and empty."""
    directory.mkdir(parents=True, exist_ok=True)
    half = directory / "segment.pgbackrest.tmp"
    half.touch()
    return half


@takes_root
def test_what_is_half_written_is_not_carried_over_for_its_writer_to_rename(site: Site) -> None:
    volume = Volume(site, site.stack.places.repository)
    archive = volume.place / "archive" / "iop"
    half = begin(archive)
    volume.make_tmpfs(room=1 << 20)
    assert not half.exists()
    volume.put_back()
    half = begin(archive)
    volume.bind()
    assert not half.exists()
    volume.unmount()
    half = begin(archive)
    volume.put_back()
    assert not half.exists()


def test_what_is_half_written_into_what_is_in_its_place_is_not_merged(site: Site) -> None:
    repository = site.stack.places.repository
    halves = [begin(repository / "archive" / "iop")]
    site.take_away(repository)
    halves.append(begin(repository / "archive" / "another"))
    (repository / "archive" / "another" / "whole").touch()
    put_back_with_wal(site, repository, "archive")
    assert not any(half.exists() for half in halves)
    assert (repository / "archive" / "another" / "whole").exists()
