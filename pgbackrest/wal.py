"""The archived WAL, as recovery will see it: timelines, segments, holes, and the records in them.

Everything is read with ``pgbackrest repo-ls`` and ``repo-get``, which write nothing and need no data directory, unlike
``archive-get``: a restore onto an empty disk can be planned, too. Python 3.9 or later, standard library only.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from probes import STANZA, ask
from repository import Backup, Refused, fetch, format_lsn, listing, parse_lsn

SEGMENT = re.compile(r"(?:.*/)?(([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8}))-([0-9a-f]{40})(\.\w+)?")
_RECORD = re.compile(r"tx: +(\d+), lsn: ([0-9A-F/]+), prev \S+, desc: (.*)")
_END = re.compile(r"(?:COMMIT|ABORT)(?:_PREPARED (\d+):)? (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) UTC")


def format_time(moment: datetime) -> str:
    """Write a time as both PostgreSQL and pgBackRest read it: in UTC, with microseconds where there are any."""
    text = moment.astimezone(timezone.utc).isoformat(sep=" ")
    return text.replace("+00:00", "+00")


@dataclass(frozen=True)
class Record:
    """A WAL record; ``when`` and ``xid`` are of the transaction that it ends, if it does."""

    lsn: int
    xid: int
    when: datetime | None
    text: str


@dataclass(frozen=True)
class File:
    """An archived segment; ``archived`` is in seconds since 1970."""

    segment: str
    path: str
    checksum: str
    archived: int


@dataclass
class Archive:
    """The archive of one cluster, such as ``17-1``, along one timeline and the ancestors of that."""

    identity: str
    follow: int = 0
    """The timeline; 0 for the newest."""
    size: int = 0
    """Bytes in a segment."""
    lineage: dict[int, int | None] = field(default_factory=dict)
    """Timelines, the oldest first, each with the LSN at which it was left; None for the last one."""
    files: dict[int, File] = field(default_factory=dict)
    """By number: the LSN at which the segment begins, divided by ``size``."""
    double: dict[int, str] = field(default_factory=dict)
    """Segments that the archive has twice, with different content: pgBackRest does not choose between them."""

    names: set[str] = field(default_factory=set)
    """Every segment, of whatever timeline."""
    began: dict[int, int] = field(default_factory=dict)
    """When each timeline's history was archived, in seconds since 1970, which is when it began or later."""

    def __post_init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="iop-wal-")
        self.load()

    def load(self) -> None:
        """Look into the repository; called again, see what has come since."""
        listed = listing(f"archive/{STANZA}/{self.identity}")
        found = [(match, entry) for name, entry in listed.items() for match in [SEGMENT.fullmatch(name)] if match]
        if not found:
            raise Refused("the repository holds no archived WAL", "see ./control.sh check")
        histories = (name for name in listed if re.fullmatch(r"[0-9A-F]{8}\.history", name))
        self.began = {1: 0, **{int(name[:8], 16): int(listed[name]["time"]) for name in histories}}
        self.load_lineage(self.follow or self.newest)
        if not self.size:
            match = found[0][0]
            self.size = len(fetch(f"archive/{STANZA}/{self.identity}/{match[0]}", match[5]))
        self.files, self.double, self.names = {}, {}, {match[1] for match, _ in found}
        for timeline, (first, last) in self.spans().items():
            seen = set()
            for match, entry in found:
                number = self.number(match[1])
                if int(match[2], 16) == timeline and first <= number <= last:
                    if match[1] in seen:
                        self.double[number] = match[1]
                    seen.add(match[1])
                    self.files[number] = File(match[1], match[0], match[5], int(entry["time"]))

    def load_lineage(self, last: int) -> None:
        """Read where timelines were left: a ``.history`` file names all ancestors of its timeline."""
        self.lineage = {}
        if last > 1:
            text = fetch(f"archive/{STANZA}/{self.identity}/{last:08X}.history").decode(errors="replace")
            for timeline, left in re.findall(r"^\s*(\d+)\s+([0-9A-F]+/[0-9A-F]+)", text, re.MULTILINE):
                self.lineage[int(timeline)] = parse_lsn(left)
        self.lineage[last] = None

    @property
    def timeline(self) -> int:
        """The timeline that recovery follows."""
        return max(self.lineage)

    @property
    def newest(self) -> int:
        """The newest timeline of all."""
        return max(self.began)

    @property
    def branch(self) -> int:
        """The LSN from which on WAL is of the followed timeline alone."""
        return max((left for left in self.lineage.values() if left is not None), default=0)

    def along(self, timeline: int) -> Archive:
        """Return the same archive along another timeline."""
        return Archive(self.identity, follow=timeline)

    def others(self) -> list[int]:
        """Return the other timelines of which there is WAL, the newest first."""
        found = {int(name[:8], 16) for name in self.names} & set(self.began)
        return sorted(found - {self.timeline}, reverse=True)

    def spans(self) -> dict[int, tuple[int, int]]:
        """Return each timeline's first and last segment: where one was left, the newer one has the segment, too."""
        spans, first = {}, 0
        for timeline, left in self.lineage.items():
            spans[timeline] = (first, 1 << 62 if left is None else (left - 1) // self.size)
            first = first if left is None else left // self.size
        return spans

    def number(self, segment: str) -> int:
        """Return the number of a segment by its name."""
        return int(segment[8:16], 16) * (0x100000000 // self.size) + int(segment[16:24], 16)

    def name(self, number: int) -> str:
        """Return the name of a segment by its number, on the last timeline that can have it."""
        timeline = max(timeline for timeline, (first, last) in self.spans().items() if first <= number)
        high, low = divmod(number, 0x100000000 // self.size)
        return f"{timeline:08X}{high:08X}{low:08X}"

    @property
    def last(self) -> int:
        """The newest segment's number."""
        if not self.files:
            raise Refused(f"the archive holds no WAL of timeline {self.timeline}", "see pgbackrest info")
        return max(self.files)

    def hole(self, first: int, last: int) -> int | None:
        """Return the first segment from ``first`` to ``last`` that recovery would not get, or None."""
        return next((n for n in range(first, last + 1) if n not in self.files or n in self.double), None)

    def leads_here(self, backup: Backup) -> bool:
        """Whether a backup ended before its timeline was left for the followed one."""
        left = self.lineage.get(int(backup.start_segment[:8], 16), -1)
        return left is None or backup.stop <= left

    def records(self, number: int, *filters: str, start: int = 0) -> list[Record]:
        """Return the records that begin in a segment, from ``start`` on; filters are options of pg_waldump.

        The next segment is there as well, as the last record may go on in it. Raise Refused if one is damaged.
        """
        begin, end = number * self.size, (number + 1) * self.size
        wanted = {n: Path(self.directory.name, self.local(n)) for n in (number, number + 1) if n in self.files}
        for old in set(Path(self.directory.name).iterdir()) - set(wanted.values()):
            old.unlink()
        for n, path in wanted.items():
            if not path.exists():
                file = self.files[n]
                path.write_bytes(fetch(f"archive/{STANZA}/{self.identity}/{file.path}", file.checksum))
        # Where the segment in which a timeline begins is not archived yet, its parent's goes on elsewhere.
        last = max(wanted)
        left = self.lineage[int(self.files[last].segment[:8], 16)]
        readable = min((last + 1) * self.size, left or 1 << 64)
        argv = ["pg_waldump", f"--path={self.directory.name}", "--timeline=1"]
        argv += [f"--start={format_lsn(max(start, begin))}", f"--end={format_lsn(readable)}"]
        answer = ask("env", "TZ=UTC", *argv, *filters)
        if answer.returncode and "could not find a valid record" not in answer.stderr:
            words = " ".join(answer.stderr.split()).replace("pg_waldump: ", "")
            message = f"WAL segment {self.files[number].segment} cannot be read: {words}"
            raise Refused(message, "recovery would end there; choose an earlier target, or: set LABEL")
        found = (parse_record(line) for line in answer.stdout.splitlines())
        return [record for record in found if record and max(start, begin) <= record.lsn < end]

    def local(self, number: int) -> str:
        """Return a segment's name for pg_waldump, which follows one timeline only: all are of the first."""
        return "00000001" + self.name(number)[8:]

    def search(self, first: int, kind: str, near: float | None = None) -> Iterator[Record]:
        """Yield the records of a kind (pg_waldump's ``--rmgr``) in segments from ``first`` on, the newest first.

        With ``near`` (seconds since 1970): those of the first segment archived since then and of later ones, the oldest
        first, and then those before. What was written at that time is found sooner; nothing depends on these times.
        """
        numbers = sorted(number for number in self.files if number >= first)
        since = [number for number in numbers if near is not None and self.files[number].archived >= near]
        forward = [number for number in numbers if since and number >= since[0]]
        backward = numbers[: len(numbers) - len(forward)][::-1]
        said_at = time.monotonic()
        for done, number in enumerate(forward + backward):
            if time.monotonic() - said_at > 3:
                said_at = time.monotonic()
                sys.stderr.write(f"searching the archived WAL: {done} of {len(numbers)} segments\n")
            found = self.records(number, f"--rmgr={kind}")
            yield from found if done < len(forward) else reversed(found)


def parse_record(line: str) -> Record | None:
    """Read one line of pg_waldump, printed in UTC."""
    match = _RECORD.search(line)
    if not match:
        return None
    end = _END.match(match[3])
    when = datetime.fromisoformat(end[2]).replace(tzinfo=timezone.utc) if end else None
    return Record(parse_lsn(match[2]), int(end[1] if end and end[1] else match[1]), when, match[3])
