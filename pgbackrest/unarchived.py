"""WAL in a data directory that no archive has, and what a data directory links to. Standard library only."""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

from probes import ask


def unarchived(data: Path) -> list[Path]:
    """Return WAL files that were never archived: those that say so, and after a crash the one that was being written.

    A clean stop archives that, too. A segment that was prepared for later use has the address of an earlier one inside.
    """
    wal = data / "pg_wal"
    if not (wal / "archive_status").is_dir():
        return []
    state = ask("env", "LC_ALL=C", "pg_controldata", str(data)).stdout
    crashed = re.search(r"^Database cluster state: +in production", state, re.MULTILINE)
    found = []
    for file in sorted(wal.iterdir()):
        status = wal / "archive_status" / file.name
        ready = Path(f"{status}.ready").exists()
        if file.is_file() and (ready or (crashed and not Path(f"{status}.done").exists() and is_written(file))):
            found.append(file)
    return found


def is_written(segment: Path) -> bool:
    """Whether a segment's first page is of the place in WAL that its name says (XLogPageHeaderData in PostgreSQL)."""
    if not re.fullmatch("[0-9A-F]{24}", segment.name):
        return False
    with segment.open("rb") as file:
        header = file.read(16)
    size = segment.stat().st_size
    begin = (int(segment.name[8:16], 16) << 32) + int(segment.name[16:], 16) * size
    return len(header) == 16 and struct.unpack("=HHIQ", header)[3] == begin


def keep_unarchived(data: Path) -> Path | None:
    """Move such files aside; return where they are now, or None if there are none."""
    files = unarchived(data)
    if not files:
        return None
    directory = Path(f"{data}.unarchived", datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ"))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in files:
        shutil.move(file, directory / file.name)
    return directory


def links(data: Path) -> Iterator[tuple[Path, Path]]:
    """Yield links to tablespaces and to a pg_wal elsewhere, and their places."""
    for link in (data / "pg_wal", *(data / "pg_tblspc").glob("*")):
        if link.is_symlink():
            yield link, link.readlink()
