"""The part of the check of the archived WAL that reads it: by the checksums in its names, and by its content.

Standard library only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pages import Place, complaint
from probes import STANZA, Findings, Problem, limit, some
from records import STOPPED, UNREAD, Reader
from repository import Refused, fetch
from snapshot import Snapshot, files
from wal import SEGMENT

if TYPE_CHECKING:
    from chain import Chain

RESTING = 4  # seconds after which a file that was verified may be verified again
RACY = 2  # seconds: a file that is so young when it is verified may change again without a change of its time


def verify(
    snapshot: Snapshot, identity: str, chain: Chain, wanted: list[tuple[Place, str]], memory: dict[str, Any]
) -> Findings:
    """Compare files with the checksums in their names, and judge their content, while the budget lasts.

    Remembered is by path: size and time of the file, when it was verified, what was wrong with it, and whether its
    records were read: they are once, as a file of that checksum has no others.
    """
    known = memory["verified"] = {path: [*entry, UNREAD][:5] for path, entry in memory.get("verified", {}).items()}
    marks = {path: snapshot.archive[f"{identity}/{path}"] for _, path in wanted}
    for path in set(known) - set(marks):
        del known[path]
    done = []
    segments = Segments(snapshot, f"archive/{STANZA}/{identity}", chain, system_of(snapshot, identity))
    reader = Reader(chain, identity, segments.load, known)
    try:
        for path in due(known, marks):
            done.append(path)
            *_, before, state = known.get(path, ["", UNREAD])
            message = segments.judge(path, reader.take if state == UNREAD else None)
            if not message and before.startswith(STOPPED):
                message = before  # until it is read again
            known[path] = [marks[path]["size"], marks[path]["time"], round(time.time(), 1), message, state]
        reader.read()
    finally:
        reader.close()
    for path, found in reader.found.items():
        known[path][3:] = found
    if any(known[path][3] for path in done):  # or it has just expired
        there = files("archive", snapshot.options)
        for path in done:
            if f"{identity}/{path}" not in there:
                known.pop(path)
    damaged = [f"{path.split('/')[-1][:24]} ({known[path][3]})" for path in marks if known.get(path, [""] * 4)[3]]
    if damaged:
        seen = f"{snapshot.name}WAL is damaged: {some(damaged)}"
        yield Problem("critical", seen, "put it back, or take a full backup now: recovery ends there")
    verified = [known[path] for path in marks if path in known]
    read = sum(entry[-1] != UNREAD for entry in verified)
    yield f"{snapshot.name}{identity}: {len(marks)} segments needed, {len(verified)} verified, records of {read} read"
    yield from (f"records not read: {trouble}" for trouble in dict.fromkeys(reader.troubles))


def due(known: Mapping[str, Any], marks: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the files to verify, the newest first, until the budget is used up.

    First those that were damaged, then new and changed ones, then, for a tenth of it, those verified longest ago.
    """
    budget = limit("IOP_WAL_VERIFY_SECONDS")
    started = time.monotonic()
    bad = [path for path, entry in known.items() if entry[3]]
    fresh = [path for path, entry in marks.items() if changed(known.get(path), entry)]
    rested = (path for path, entry in known.items() if path in marks and time.time() - float(entry[2]) > RESTING)
    old = sorted(rested, key=lambda path: float(known[path][2]))
    done = set()
    for group, share in ((bad, 1.0), (fresh, 1.0), (old, 0.1)):
        begun = time.monotonic()
        for path in group:
            if time.monotonic() - started > budget or (share < 1 and time.monotonic() - begun > share * budget):
                break
            if path not in done:
                done.add(path)
                yield path


@dataclass(frozen=True)
class Segments:
    """The files of one cluster's archive, which lie in ``where``; ``system`` is that cluster's identifier."""

    snapshot: Snapshot
    where: str
    chain: Chain
    system: int

    def judge(self, path: str, keep: Callable[[Place, str, bytes], None] | None) -> str:
        """Return what is wrong with a file, or nothing, and then give its content to ``keep``."""
        place = self.chain.place(path.rsplit("/", maxsplit=1)[-1])

        def look(content: bytes) -> str:
            wrong = complaint(content, place, self.chain.size, self.system)
            if not wrong and keep:
                keep(place, path, content)
            return wrong

        return compare(self.snapshot, f"{self.where}/{path}", look)

    def load(self, path: str) -> bytes | None:
        """Return the content of a file, if nothing is wrong with it."""
        found: list[bytes] = []
        self.judge(path, lambda _place, _path, content: found.append(content))
        return found[0] if found else None


def system_of(snapshot: Snapshot, identity: str) -> int:
    """Return the system identifier of the cluster whose WAL is in that directory."""
    number = int(identity.rpartition("-")[2])
    return next(
        int(db["system-id"]) for db in snapshot.stanza["db"] if (db["repo-key"], db["id"]) == (snapshot.key, number)
    )


def changed(known: list[Any] | None, entry: Mapping[str, Any]) -> bool:
    """Whether a file has to be verified (again)."""
    return known is None or known[:2] != [entry["size"], entry["time"]] or known[2] - entry["time"] < RACY


def compare(snapshot: Snapshot, path: str, look: Callable[[bytes], str]) -> str:
    """Return what is wrong with a file, or else what ``look`` says of its content."""
    match = SEGMENT.fullmatch(path)
    try:
        content = fetch(path, match[5] if match else "", *snapshot.options)
    except Refused as refused:
        if isinstance(refused.__cause__, Problem):  # no answer says nothing of the file
            raise refused.__cause__ from refused
        return refused.message.split(" in the repository ", 1)[-1]
    return "recovery ends there: wal_level was minimal" if was_minimal(content) else look(content)


def was_minimal(segment: bytes) -> bool:
    """Whether a record says that from there on too little was written for recovery, which refuses to pass it.

    XLOG_PARAMETER_CHANGE: XLogRecord, a short data header and xl_parameter_change, whose sixth number is wal_level, 0
    for minimal (PostgreSQL's xlogrecord.h and xlog_internal.h, alike from 12 to 18). Records are aligned to 8 bytes.
    One that goes on in the next page is not found: a server writes it first of all when it starts, so that is rare.
    """
    return any(
        match.start() % 8 == 0 and match[1] == bytes(4)
        for match in re.finditer(rb"\x36\0\0\0.{12}\x60\0.{6}\xff\x1c.{20}(.{4})", segment, re.DOTALL)
    )
