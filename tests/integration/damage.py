"""Real damage to a backup system of one's own, each undone at the end of its block."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pgbackrest_system import USER, System, wait_for

Damage = Callable[[System], AbstractContextManager[Mapping[str, str]]]
"""Does harm, gives the variables that the check is to run with, and puts all right again."""


def segments(stack: System) -> list[Path]:
    """Return the archived WAL segments, the oldest first."""
    return sorted((stack.repository / "archive" / "iop").glob("*/*/*-*"))


def needed(stack: System) -> list[Path]:
    """Return those from the oldest backup on."""
    start = stack.backups()[0]["archive"]["start"]
    return [path for path in segments(stack) if path.name[:24] >= start]


def write_wal(stack: System, count: int = 3) -> None:
    """Make the server archive some segments with something in them, and wait until they are."""
    stack.sql("CREATE TABLE IF NOT EXISTS written (n int)")
    for _ in range(count):
        stack.sql("INSERT INTO written SELECT generate_series(1, 100)")
        last = stack.sql("SELECT pg_walfile_name(pg_switch_wal())")
    wait_for(lambda: stack.sql(f"SELECT last_archived_wal >= '{last}' FROM pg_stat_archiver") == "t")


@contextmanager
def aside(path: Path) -> Iterator[Mapping[str, str]]:
    """Move something out of the way."""
    root = next(parent for parent in path.parents if parent.name.startswith("iop-"))  # out of the repository
    kept = root / f"aside-{path.name}"
    path.rename(kept)
    try:
        yield {}
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        kept.rename(path)


@contextmanager
def rewritten(path: Path, change: Callable[[bytes], bytes], *, unnoticed: bool = False) -> Iterator[Mapping[str, str]]:
    """Change a file's content in place; ``unnoticed``: with the time of its last change kept."""
    before, content = path.stat(), path.read_bytes()

    def put(data: bytes) -> None:
        path.write_bytes(data)
        if unnoticed:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    path.chmod(0o640)
    put(change(content))
    try:
        yield {}
    finally:
        put(content)


def flipped(data: bytes) -> bytes:
    """Turn one bit in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@contextmanager
def copied(path: Path, to: Path) -> Iterator[Mapping[str, str]]:
    """Have a file twice."""
    shutil.copy(path, to)
    if USER:
        shutil.chown(to, USER, USER)
    try:
        yield {}
    finally:
        to.unlink()


@contextmanager
def mode(path: Path, bits: int) -> Iterator[Mapping[str, str]]:
    """Take rights away."""
    before = path.stat().st_mode
    path.chmod(bits)
    try:
        yield {}
    finally:
        path.chmod(before)


@contextmanager
def stopped(pid: int) -> Iterator[Mapping[str, str]]:
    """Make a process hang."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield {}
    finally:
        os.kill(pid, signal.SIGCONT)


def setting(name: str, value: str, action: str = "reload", **environment: str) -> Damage:
    """Change a setting of the server."""

    @contextmanager
    def sabotage(stack: System) -> Iterator[Mapping[str, str]]:
        before = stack.sql(f"SHOW {name}")
        stack.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        stack.postgres(action)
        seen = f"SELECT setting = '{value}' OR pending_restart FROM pg_settings WHERE name = '{name}'"
        try:
            wait_for(lambda: stack.sql(seen) == "t")
            yield environment
        finally:
            stack.sql(f"ALTER SYSTEM RESET {name}")
            stack.postgres(action)
            wait_for(lambda: stack.sql(f"SHOW {name}") == before)

    return sabotage


@contextmanager
def failing_after_all(stack: System) -> Iterator[Mapping[str, str]]:
    """Let archive_command fail when its work is done, and give PostgreSQL the time to learn of it."""
    with setting("archive_command", "pgbackrest --stanza=iop archive-push %p; false")(stack) as environment:
        stack.sql("SELECT pg_logical_emit_message(true, 'test', ''), pg_switch_wal()")
        wait_for(lambda: stack.sql("SELECT last_failed_time > last_archived_time FROM pg_stat_archiver") == "t")
        yield environment


@contextmanager
def mounted(path: Path, *how: str) -> Iterator[Mapping[str, str]]:
    """Mount something over a directory, by these arguments of mount(8); what lay there is there again afterwards."""
    subprocess.run(("mount", *how, path), check=True)
    try:
        yield {}
    finally:
        subprocess.run(("umount", "--lazy", path), check=True)  # a program that is just ending may still use it


@contextmanager
def image(path: Path) -> Iterator[Path]:
    """Give a file with an ext4 file system."""
    with path.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(("mkfs.ext4", "-q", "-m", "0", path), check=True)
    try:
        yield path
    finally:
        path.unlink()


@contextmanager
def frozen(path: Path) -> Iterator[Mapping[str, str]]:
    """Let whoever writes to a file system wait, uninterruptibly, so that not even SIGKILL ends it."""
    subprocess.run(("fsfreeze", "--freeze", path), check=True)
    try:
        yield {}
    finally:
        subprocess.run(("fsfreeze", "--unfreeze", path), check=True)


def rewrite_info(path: Path, change: Callable[[str, str], str]) -> None:
    """Change values of an info file, by section and key, and make it fit its checksum again.

    That is the SHA-1 of all but itself, written as one JSON object of objects (infoLoad in pgBackRest's info.c).
    """
    sections: dict[str, list[str]] = {}
    lines, name = [], ""
    for line in path.read_text().splitlines():
        name = line[1:-1] if line.startswith("[") else name
        key, is_value, value = line.partition("=")
        if is_value and key != "backrest-checksum":
            changed = change(name, value)
            sections.setdefault(name, []).append(f'"{key}":{changed}')
            lines.append(f"{key}={changed}")
        else:
            lines.append(line)
    content = ",".join(f'"{section}":{{{",".join(entries)}}}' for section, entries in sections.items())
    checksum = hashlib.sha1(f"{{{content}}}".encode(), usedforsecurity=False).hexdigest()
    path.write_text("\n".join([*lines[:-1], f'backrest-checksum="{checksum}"']) + "\n")
