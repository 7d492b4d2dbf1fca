"""The order of commit records in the archived WAL: what a recovery target leaves, by another word than the server's.

``pg_waldump`` reads the segments that ``pgbackrest archive-get`` gives, along one timeline and its ancestors, as
recovery does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import PurePosixPath

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.cluster.lsn import format_lsn, parse_lsn, segment_name
from pytest_iopbackup.errors import GapError, ProofError
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.stack.base import Host, Restorable, Service

_ENDING = re.compile(
    r"rmgr: Transaction .*tx: +(?P<tx>\d+), lsn: (?P<lsn>\S+), prev (?P<prev>[0-9A-F/]+), desc: "
    r"(?P<kind>COMMIT|ABORT)(?:_PREPARED (?P<prepared>\d+):)? (?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) UTC"
)
_RECORD = re.compile(r"^rmgr: .*?, lsn: ([0-9A-F/]+), prev ", re.MULTILINE)
_SEGMENT = re.compile(r"(?:.*/)?([0-9A-F]{24})-[0-9a-f]{40}(?:\.\w+)?")
_FILTER = """
pg_waldump "$@" |
    grep -E 'tx: +[1-9]|nextXid' | grep -vE 'desc: (LOCK|LOCK_UPDATED|FPI_FOR_HINT) ' |
    grep -oE 'rel [0-9]+/[0-9]+/[0-9]+|(base|PG_[0-9_]+)/[0-9]+/[0-9]+|nextXid [0-9]+' | sort -u
status=("${PIPESTATUS[@]}")
((status[1] < 2 && status[2] < 2 && status[3] < 2 && status[4] == 0)) || exit 3
exit "${status[0]}"
"""
_ONLY_CHANGES = ("bash", "-c", _FILTER, "pg_waldump")
"""Which files transactions change, and where numbering stands when a snapshot is logged: each line once.

Exits with 3 where lines may have been lost; pg_waldump fails with 1.
"""
_STOPPED = re.compile(r'error in WAL record at (?P<lsn>[0-9A-F/]+)|could not find file "(?P<segment>[0-9A-F]{24})"')


_AT_ONCE = 4
"""Segments fetched side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The record with which a transaction ends. Places are byte positions."""

    xid: int
    """The lower 32 bits; of a prepared transaction its own, not that of the command that ended it."""
    committed: bool
    time: datetime
    timeline: int
    lsn: int
    """Where the record begins."""
    previous: int
    """Where the record before it begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What transactions change in a stretch of WAL.

    What belongs to none (vacuum, pruning) changes no row, and neither does a lock on one, or a hint bit.
    """

    files: frozenset[tuple[int, int]]
    """Of relations: OID of the database, and filenode."""
    following: int
    """The lower 32 bits of an xid: transactions from this one on have begun in this WAL, and all they do is in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WalOrder:
    """How transactions ended, in the order in which recovery meets them. Places are byte positions."""

    endings: tuple[Ending, ...]
    start: int
    end: int
    """Where the archived WAL ends: the end of its last segment; ``start`` where there is none from there on."""
    last: int | None = None
    """Where the last record begins, behind which there is nothing to stop at; None where that was not read."""
    hole: str | None = None
    """The missing segment at which it ends, though there are later ones."""
    changes: Changes | None = None
    """None where that was not read."""


def read_order(
    stack: Restorable,
    since: str,
    limits: Limits,
    timeline: int | None = None,
    *,
    to_hole: bool = False,
    changes: bool = False,
) -> WalOrder:
    """Read the archived WAL from the LSN ``since`` on, along ``timeline`` (None: the newest) and its ancestors.

    With ``changes``, it is read once more, for what they are.

    Raises GapError where a segment on the way is missing, unless it is read ``to_hole``, as recovery does; ProofError
    where one cannot be read to its end.
    """
    archive_id = pgbackrest.info(stack, limits).archive_id
    if archive_id is None:
        raise ProofError("the repository holds no WAL", hint="see PostgreSQL's log for what archive_command said")
    lineage = pgbackrest.lineage(stack, archive_id, timeline, limits)
    listed = pgbackrest.listing(stack, PurePosixPath("archive", stack.stanza, archive_id), limits, recurse=True)
    names = frozenset(match[1] for match in map(_SEGMENT.fullmatch, listed) if match)
    host = stack.host(Service.BACKUP)
    made = host.run(["mktemp", "-d", "-p", str(stack.places.lock), "wal-XXXXXX"], timeout=limits.command)
    directory = made.stdout.strip()
    try:
        return _Reader(host, limits, directory, names, lineage, to_hole, changes).read(parse_lsn(since))
    finally:
        host.run(["rm", "-rf", directory], timeout=limits.command)


@dataclass
class _Reader:
    """Fetches segments into a directory, and reads them there."""

    host: Host
    limits: Limits
    directory: str
    names: frozenset[str]
    """Segments in the repository, of whatever timeline."""
    lineage: Mapping[int, str | None]
    to_hole: bool
    changes: bool
    hole: str | None = None

    def read(self, since: int) -> WalOrder:
        """Read each timeline from where the one before it was left."""
        endings: list[Ending] = []
        changed: set[str] = set()
        at = since
        for timeline, left_at in sorted(self.lineage.items()):
            until = parse_lsn(left_at) if left_at else None
            if until is None or until > at:
                end = self._fetch_all(timeline, at, until)
                if end > at:
                    endings += self._dump(timeline, at, end)
                    if self.changes:
                        changed.update(self._records(timeline, at, end, program=_ONLY_CHANGES).splitlines())
                    at = end
                if self.hole:
                    break
        last = None
        if at > since and self.hole is None:
            last = self._last(max(self.lineage), max([at - self.size, since, *(one.lsn for one in endings)]), at)
        return WalOrder(
            endings=tuple(endings), start=since, end=at, last=last, hole=self.hole, changes=_changes(changed)
        )

    @cached_property
    def size(self) -> int:
        """Bytes in a segment."""
        name = min(self.names, default=None)
        if name is None:
            raise ProofError("the repository holds no WAL segment", hint="see what archive_command said")
        path = self._fetch(name, name)
        return int(self.host.run(["stat", "-c", "%s", path], timeout=self.limits.command).stdout)

    def _fetch_all(self, timeline: int, since: int, until: int | None) -> int:
        """Get what a timeline has from ``since`` to ``until``, or to its last segment; return where that ends."""
        numbers = {self._number(name) for name in self.names if int(name[:8], 16) == timeline}
        first = since // self.size
        last = (until - 1) // self.size if until is not None else max(numbers, default=first)
        found: list[tuple[str, str]] = []
        for number in range(first, last + 1):
            wanted = segment_name(timeline, number, self.size)
            source = self._source(timeline, number)
            if source is None and self.to_hole:
                self.hole = wanted
                until = max(since, number * self.size)
                break
            if source is None:
                raise GapError(
                    f"WAL segment {wanted} is missing from the repository", hint="recovery would end there, in silence"
                )
            found.append((source, wanted))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda names: self._fetch(*names), found))
        return until if until is not None else max(since, (last + 1) * self.size)

    def _source(self, timeline: int, number: int) -> str | None:
        """Return the segment by its own name or, where the timeline was left in it, by that of a descendant."""
        names = (segment_name(line, number, self.size) for line in sorted(self.lineage) if line >= timeline)
        return next((name for name in names if name in self.names), None)

    def _number(self, name: str) -> int:
        return (int(name[8:16], 16) << 32) // self.size + int(name[16:], 16)

    def _fetch(self, source: str, name: str) -> str:
        path = f"{self.directory}/{name}"
        self.host.run(["pgbackrest", "archive-get", source, path], timeout=self.limits.command)
        return path

    def _last(self, timeline: int, since: int, until: int) -> int | None:
        found = _RECORD.findall(self._records(timeline, since, until))
        return parse_lsn(found[-1]) if found else None

    def _dump(self, timeline: int, since: int, until: int) -> Iterator[Ending]:
        """Yield the endings between two places."""
        for match in _ENDING.finditer(self._records(timeline, since, until, "--rmgr=Transaction")):
            lsn = parse_lsn(match["lsn"])
            if since <= lsn < until:
                yield Ending(
                    xid=int(match["prepared"] or match["tx"]),
                    committed=match["kind"] == "COMMIT",
                    time=datetime.fromisoformat(match["time"]).replace(tzinfo=timezone.utc),
                    timeline=timeline,
                    lsn=lsn,
                    previous=parse_lsn(match["prev"]),
                )

    def _records(
        self, timeline: int, since: int, until: int, *options: str, program: tuple[str, ...] = ("pg_waldump",)
    ) -> str:
        """Return ``pg_waldump``'s lines between two places, or what ``program`` leaves of them.

        The last record of the last segment may go on in the next one, which is not there yet.
        """
        argv = [*program, f"--path={self.directory}", f"--timeline={timeline}", *options]
        argv += [f"--start={format_lsn(since)}", f"--end={format_lsn(until)}"]
        result = self.host.run(argv, timeout=self.limits.command, check=False, env={"TZ": "UTC"})
        if result.exit_code != 0:
            stopped = _STOPPED.search(result.stderr) if result.exit_code == 1 else None
            in_last = stopped and stopped["lsn"] and parse_lsn(stopped["lsn"]) >= until - self.size
            behind = stopped and stopped["segment"] == segment_name(timeline, -(-until // self.size), self.size)
            if not (in_last or behind):
                raise ProofError(f"the archived WAL of timeline {timeline} cannot be read: {result.describe()}")
        return result.stdout


def _changes(lines: Set[str]) -> Changes | None:
    """Return what ``_ONLY_CHANGES`` has printed; None where no snapshot was logged."""
    files, logged = set(), []
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "nextXid":
            logged.append(int(rest))
        else:
            database, filenode = (rest or kind).split("/")[-2:]
            files.add((int(database), int(filenode)))
    return Changes(files=frozenset(files), following=min(logged)) if logged else None
