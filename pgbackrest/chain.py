"""The check of the archived WAL: whether all is there that any backup and any moment of the recovery window needs.

Standard library only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from checksums import verify
from helps import options
from memory import Memory
from probes import STANZA, Findings, Problem, query, some
from repository import Refused, fetch, format_lsn, parse_lsn
from snapshot import Snapshot, look, take
from timelines import histories, judge_histories, judge_own
from wal import SEGMENT

READY = "SELECT coalesce(json_agg(left(name, 24)), '[]') FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
KINDS = {"full": ("full",), "diff": ("full", "diff"), "incr": ("full", "diff", "incr")}


@dataclass(frozen=True)
class Span:
    """Segments of one timeline, by number: the LSN at which a segment begins, divided by its size."""

    timeline: int
    first: int
    last: int


@dataclass
class Chain:
    """The archive of one cluster. ``forks``: of each timeline, its ancestors and where each was left, oldest first."""

    size: int
    files: dict[tuple[int, int], list[str]] = field(default_factory=lambda: defaultdict(list))
    """By timeline and number: paths below the archive's directory."""
    forks: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    newest: dict[int, int] = field(default_factory=dict)
    """The highest number of each timeline."""
    oldest: dict[int, int] = field(default_factory=dict)
    """The lowest one."""

    def add(self, path: str, segment: str) -> None:
        """Take a file in."""
        timeline, number = self.place(segment)
        self.files[timeline, number].append(path)
        self.newest[timeline] = max(number, self.newest.get(timeline, 0))
        self.oldest[timeline] = min(number, self.oldest.get(timeline, number))

    def place(self, segment: str) -> tuple[int, int]:
        """Return timeline and number of a segment by its name."""
        per_log = 0x100000000 // self.size
        return int(segment[:8], 16), int(segment[8:16], 16) * per_log + int(segment[16:24], 16)

    def name(self, timeline: int, number: int) -> str:
        """Return the name of a segment."""
        high, low = divmod(number, 0x100000000 // self.size)
        return f"{timeline:08X}{high:08X}{low:08X}"

    def spans(self, start: str, stop_lsn: int) -> Iterator[Span]:
        """Yield what recovery may read from a backup on: its own timeline, and each that leaves it after its end."""
        origin, first = self.place(start)
        if origin in self.newest:
            yield Span(origin, first, self.newest[origin])
        for timeline, ancestors in self.forks.items():
            left = dict(ancestors)
            if origin not in left or left[origin] < stop_lsn:
                continue
            begin = first
            for ancestor, lsn in ancestors:
                if ancestor >= origin:
                    # The segment in which a timeline was left is in its successor, too, and may not be complete here.
                    yield Span(ancestor, begin, lsn // self.size - 1)
                    begin = lsn // self.size
            if timeline in self.newest:
                yield Span(timeline, begin, self.newest[timeline])


def merge(spans: Iterable[Span]) -> dict[int, list[tuple[int, int]]]:
    """Unite spans that overlap."""
    merged: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span.timeline, span.first)):
        known = merged[span.timeline]
        if span.last < span.first:
            continue
        if known and span.first <= known[-1][1] + 1:
            known[-1] = (known[-1][0], max(known[-1][1], span.last))
        else:
            known.append((span.first, span.last))
    return merged


def window_start(backups: list[dict[str, Any]], set_options: Mapping[str, str]) -> int:
    """Return the index of the backup from which on pgBackRest keeps all WAL; of older ones it keeps their own only.

    ``repo-retention-archive`` and its type in pgBackRest's configuration reference.
    """
    kinds = KINDS.get(set_options.get("repo-retention-archive-type", "full"), ("full",))
    kept = set_options.get("repo-retention-archive", "")
    counted = [index for index, backup in enumerate(backups) if backup["type"] in kinds]
    if kept == "<multi>":
        return counted[-1] if counted else 0
    return counted[-int(kept)] if kept.isdigit() and 0 < int(kept) <= len(counted) else 0


def needed(chain: Chain, backups: list[dict[str, Any]], since: int) -> dict[int, list[tuple[int, int]]]:
    """Return which segments have to be there: from the window's start on all, and of each backup its own."""
    spans = []
    for index, backup in enumerate(backups):
        start, stop = backup["archive"]["start"], backup["archive"]["stop"]
        if not start:  # taken offline: consistent without WAL
            continue
        spans.append(Span(*chain.place(start), chain.place(stop)[1]))
        if index >= since:
            spans += chain.spans(start, parse_lsn(backup["lsn"]["stop"]))
    return merge(spans)


def read(snapshot: Snapshot, identity: str, memory: dict[str, Any]) -> Chain | None:
    """Read the listing of one cluster's archive; None if it holds no segment."""
    prefix = f"{identity}/"
    found = [(path[len(prefix) :], entry) for path, entry in snapshot.archive.items() if path.startswith(prefix)]
    matches = [match for path, _ in found for match in [SEGMENT.fullmatch(path)] if match]
    if not matches:
        return None
    where = f"archive/{STANZA}/{identity}"
    for match in matches[::-1] if "size" not in memory else ():
        with suppress(Refused):  # the next one may be whole
            memory["size"] = len(fetch(f"{where}/{match[0]}", match[5], *snapshot.options))
            break
    if "size" not in memory:
        raise Refused(f"no segment of {identity} is readable", "take a full backup now")
    chain = Chain(memory["size"])
    for match in matches:
        chain.add(match[0], match[1])
    chain.forks = histories(dict(found), lambda path: fetch(f"{where}/{path}", "", *snapshot.options), memory)
    return chain


def wal_chain() -> Findings:
    """Ask whether every needed segment is there, once, whole, and (some of them, each time) of its checksum."""
    for snapshot in look():
        memory = Memory(f"wal-{snapshot.key}")
        if memory.new:
            yield "begins to verify checksums"
        identities = {f"{db['version']}-{db['id']}" for db in snapshot.stanza["db"] if db["repo-key"] == snapshot.key}
        for identity in sorted(identities):
            remembered = memory.setdefault(identity, {})
            try:
                yield from judge(snapshot, identity, remembered)
            except Refused as refused:
                yield Problem("critical", snapshot.name + refused.message, refused.hint)
        memory.save()


def judge(snapshot: Snapshot, identity: str, memory: dict[str, Any]) -> Findings:
    """Judge one cluster's archive."""
    backups = of_cluster(snapshot, identity)
    chain = read(snapshot, identity, memory)
    if chain is None:
        if any(backup["archive"]["start"] for backup in backups):
            yield Problem("critical", f"{snapshot.name}{identity} holds no WAL at all", "take a full backup")
        return
    window = since(snapshot, identity)
    wanted = needed(chain, backups, window)
    if holes(chain, wanted):
        yield from judge_missing(chain, confirmed(snapshot, identity, memory), backups, snapshot.name)
    yield from judge_histories(chain, backups, snapshot.name, window)
    if chain.forks and identity == snapshot.archive_id:
        yield from judge_own(chain, snapshot.name)
    yield from judge_files(snapshot, identity, chain, wanted)
    yield from verify(snapshot, identity, chain, list(wanted_files(chain, wanted)), memory)


def of_cluster(snapshot: Snapshot, identity: str) -> list[dict[str, Any]]:
    """Return the backups whose WAL is in that directory."""
    number = int(identity.rsplit("-", maxsplit=1)[-1])
    return [entry for entry in snapshot.backups if entry["database"]["id"] == number]


def since(snapshot: Snapshot, identity: str) -> int:
    """Return the index of the backup at which the recovery window begins; a cluster before an upgrade has none."""
    backups = of_cluster(snapshot, identity)
    return window_start(backups, options()) if identity == snapshot.archive_id else len(backups)


def holes(chain: Chain, wanted: Mapping[int, list[tuple[int, int]]]) -> list[str]:
    """Return the names of the needed segments that are not there."""
    return [
        chain.name(timeline, number)
        for timeline, spans in wanted.items()
        for first, last in spans
        for number in range(first, last + 1)
        if (timeline, number) not in chain.files
    ]


def confirmed(snapshot: Snapshot, identity: str, memory: dict[str, Any]) -> list[str]:
    """Return the segments that are really missing: several are pushed at a time, and one may come after the next.

    Those that the server still has to archive are none; then a second look, as one may have arrived, or expired, since.
    """
    waiting: set[str] = set()
    with suppress(Problem):  # a server that is down has archived all that it ever will
        waiting = set(query(READY))
    again = next(other for other in take() if other.key == snapshot.key)
    chain = read(again, identity, memory)
    if chain is None:
        return []
    wanted = needed(chain, of_cluster(again, identity), since(again, identity))
    return [segment for segment in holes(chain, wanted) if segment not in waiting]


def judge_missing(chain: Chain, missing: list[str], backups: list[dict[str, Any]], name: str) -> Findings:
    """Say what cannot be restored without these segments. A hole before the newest full backup is history."""
    if not missing:
        return
    ranges = [(b["label"], b["archive"]["start"], b["archive"]["stop"]) for b in backups if b["archive"]["start"]]
    useless = [label for label, start, stop in ranges if any(start <= segment <= stop for segment in missing)]
    last = max(chain.place(segment)[1] for segment in missing)
    full = max((b["archive"]["start"] or "" for b in backups if b["type"] == "full"), default="")
    lost = f"recovery ends at {format_lsn(chain.place(missing[0])[1] * chain.size)}"
    if useless:
        lost = f"useless without it: {some(useless)}"
    seen = f"{name}WAL is missing from the repository: {some(missing)}; {lost}"
    if full and chain.place(full)[1] > last:
        hint = "it matters until the backups before it expire; pgbackrest expire --set=LABEL removes them now"
        yield Problem("warning", f"{seen}; the full backup from {full} on is not affected", hint)
    else:
        yield Problem("critical", seen, "put it back, or take a full backup now")


def judge_files(
    snapshot: Snapshot, identity: str, chain: Chain, wanted: Mapping[int, list[tuple[int, int]]]
) -> Findings:
    """Judge number and size of the files that are there."""
    cipher = any(repo["cipher"] != "none" for repo in snapshot.stanza["repo"] if repo["key"] == snapshot.key)
    double, wrong = [], []
    for place, path in wanted_files(chain, wanted):
        entry = snapshot.archive[f"{identity}/{path}"]
        if len(chain.files[place]) > 1:
            double.append(chain.name(*place))
        plain = "." not in path and not cipher
        if entry["size"] == 0 or (plain and entry["size"] != chain.size):
            wrong.append(f"{chain.name(*place)} ({entry['size']} bytes)")
    if double:
        seen = f"{snapshot.name}in the archive twice: {some(sorted(set(double)))}"
        yield Problem("critical", seen, "a second server archives here, or did: remove its files, take a full backup")
    if wrong:
        seen = f"{snapshot.name}WAL of an impossible size: {some(wrong)}"
        yield Problem("critical", seen, "put it back, or take a full backup now")


def wanted_files(chain: Chain, wanted: Mapping[int, list[tuple[int, int]]]) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield place and path of every file of a needed segment, the newest first."""
    for timeline in sorted(wanted, reverse=True):
        for first, last in reversed(wanted[timeline]):
            for number in range(last, first - 1, -1):
                for path in chain.files.get((timeline, number), ()):
                    yield (timeline, number), path
