"""What the repository holds, by pgBackRest's own word: backups, and files with their content.

Only ``info``, ``repo-ls`` and ``repo-get`` are run, which write nothing. Python 3.9 or later, standard library only.
"""

from __future__ import annotations

import bz2
import ctypes
import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probes import STANZA, Problem, ask, fetch_bytes, said, stanza_in

SIZES = (1 << 24, 1 << 26, 1 << 28, 1 << 30)
"""Room for an unpacked segment, in bytes: 16 MiB, PostgreSQL's default, up to 1 GiB, the most that it allows."""
DAMAGED = "it is damaged: choose a target before it, or: set LABEL; pgbackrest verify lists all damage"
HINT = "is the volume mounted? is PGBACKREST_STANZA right? pgbackrest info shows what is there"


class Refused(Exception):  # noqa: N818 - a restore is refused
    """Why a restore cannot be, what to do instead, and the exit code."""

    def __init__(self, message: str, hint: str, code: int = 4) -> None:
        super().__init__(message)
        self.message, self.hint, self.code = message, hint, code


def parse_lsn(text: str) -> int:
    """Return a place in WAL as a number of bytes; raise ValueError unless it is written as PostgreSQL does."""
    if not re.fullmatch("[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}", text):
        raise ValueError(text)
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def format_lsn(lsn: int) -> str:
    """Write a place in WAL as PostgreSQL does."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


@dataclass(frozen=True)
class Backup:
    """A backup, as ``pgbackrest info`` has it; ``stopped`` is in whole seconds since 1970."""

    label: str
    type: str
    start_segment: str
    stop_segment: str
    start: int
    """LSN at which recovery begins."""
    stop: int
    """LSN at which the backup is consistent."""
    stopped: int
    size: int
    damaged: bool


def look_up() -> tuple[list[Backup], str]:
    """Return the backups of the present cluster in the first repository, the oldest first, and its archive's name."""
    answer = ask("pgbackrest", "info", "--output=json")
    for problem in said(answer):
        if problem.status == "critical":
            raise Refused(f"the repository cannot be read: {problem.seen}", problem.hint)
    stanza = stanza_in(answer.stdout, STANZA)
    repo = stanza["repo"][0]
    if repo["status"]["code"]:
        words = " ".join(repo["status"]["message"].split())
        raise Refused(f"nothing can be restored from stanza {STANZA}: {words} (status {repo['status']['code']})", HINT)
    cluster = [{"id": db["id"], "repo-key": repo["key"]} for db in stanza["db"] if db["repo-key"] == repo["key"]][-1]
    archives = [archive["id"] for archive in stanza["archive"] if archive["database"] == cluster]
    mine = [entry for entry in stanza["backup"] if entry["database"] == cluster]
    entries = [entry for entry in mine if entry["archive"]["start"]]  # taken offline, it has no WAL to go on with
    if not archives or not entries:
        raise Refused("the repository holds no backup of the present cluster with its WAL", HINT)
    entries.sort(key=lambda entry: int(entry["timestamp"]["stop"]))
    return [read_backup(entry) for entry in entries], str(archives[-1])


def read_backup(entry: dict[str, Any]) -> Backup:
    """Read one entry of info."""
    return Backup(
        label=entry["label"],
        type=entry["type"],
        start_segment=entry["archive"]["start"],
        stop_segment=entry["archive"]["stop"],
        start=parse_lsn(entry["lsn"]["start"]),
        stop=parse_lsn(entry["lsn"]["stop"]),
        stopped=int(entry["timestamp"]["stop"]),
        size=int(entry["info"]["size"]),
        damaged=bool(entry.get("error")),
    )


def listing(path: str, *options: str) -> dict[str, Any]:
    """Return what lies in the repository under a path: names relative to it, each with type, size and time."""
    answer = ask("pgbackrest", "repo-ls", *options, "--recurse", "--output=json", path)
    document = re.search(r"^\{.*\}", answer.stdout, re.MULTILINE | re.DOTALL)
    if answer.returncode or not document:
        words = "; ".join(problem.seen for problem in said(answer))
        raise Refused(f"{path} in the repository cannot be listed: {words}", HINT)
    return dict(json.loads(document[0]))


def fetch(path: str, checksum: str = "", *options: str) -> bytes:
    """Return a file of the repository, unpacked; raise Refused if it is not of that checksum, which its name has."""
    try:
        answer = fetch_bytes("pgbackrest", "repo-get", *options, path)
    except Problem as problem:
        raise Refused(f"{problem.seen} {path}", "does the repository hang?") from problem
    if answer.returncode:
        words = " ".join(answer.stderr.decode(errors="replace").split())
        raise Refused(f"{path} in the repository cannot be read: {words}", HINT)
    # From 2.53 on, pgBackRest's warnings about its configuration stand before the content.
    content = re.sub(rb"\A(?:(?:[\d:. P-]* +)?WARN: [^\n]*\n(?: +[^\n]*\n)*)+", b"", answer.stdout)
    try:
        content = unpack(content, Path(path).suffix if checksum else "")
    except (OSError, ValueError, EOFError) as error:
        raise Refused(f"{path} in the repository cannot be unpacked: {error}", DAMAGED) from error
    if checksum and hashlib.sha1(content, usedforsecurity=False).hexdigest() != checksum:
        raise Refused(f"{path} in the repository does not match its checksum", DAMAGED)
    return content


def unpack(data: bytes, suffix: str) -> bytes:
    """Undo what pgBackRest's compress-type did. For zst and lz4 its own libraries are used: they are always with it."""
    if suffix in {".gz", ".bz2"}:
        return gzip.decompress(data) if suffix == ".gz" else bz2.decompress(data)
    if suffix not in {".zst", ".lz4"}:
        return data
    library = ctypes.CDLL("libzstd.so.1" if suffix == ".zst" else "liblz4.so.1")
    for size in SIZES:
        buffer, room, length = ctypes.create_string_buffer(size), ctypes.c_size_t(size), ctypes.c_size_t(len(data))
        if suffix == ".zst":
            library.ZSTD_decompress.restype = ctypes.c_size_t
            room.value = library.ZSTD_decompress(buffer, room, data, length)
            complete = not library.ZSTD_isError(room)
        else:
            context = ctypes.c_void_p()
            library.LZ4F_decompress.restype = ctypes.c_size_t
            library.LZ4F_createDecompressionContext(ctypes.byref(context), 100)
            rest = library.LZ4F_decompress(context, buffer, ctypes.byref(room), data, ctypes.byref(length), None)
            library.LZ4F_freeDecompressionContext(context)
            complete = rest == 0
        if complete:
            return ctypes.string_at(buffer, room.value)
    raise ValueError("damaged, or larger than PostgreSQL's largest segment")
