"""Restore targets: whether one can be reached, from which backup, and with which options of pgBackRest.

PostgreSQL ends with FATAL where the archived WAL ends before the target, and by then the old data is gone. So what will
be met on the way is looked up first. Recovery to a time stops at the first commit or abort record later than that:
there has to be one. Recovery to a name stops at the first restore point of that name. PostgreSQL's manual has the rules
under "Recovery Target". The set is always chosen here: pgBackRest would choose by time and LSN, and take the latest for
a transaction or a name. Python 3.9 or later, standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from difflib import get_close_matches

from repository import Backup, Refused, format_lsn, look_up, parse_lsn
from server import committed_at, flush, insert_lsn, is_up, last_commit
from timelines import live_at, refuse_left
from wal import Archive, Record, format_time

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,6}))? *(?:(Z)|([+-]\d\d)(?::?(\d\d))?)?")
_POINT = re.compile("RESTORE_POINT (.*)")
USAGE = 'none, time "2026-01-15 21:30:00+00", lsn X, xid N, name P, or set LABEL'
EARLIER = "choose a target inside of what is there; none restores to the end of the archived WAL"


@dataclass(frozen=True)
class Plan:
    """Options of pgbackrest restore, and what to tell people: pairs of a title and a text."""

    options: list[str]
    lines: list[tuple[str, str]]


def parse_time(text: str) -> tuple[datetime, str]:
    """Return a target time, and what is to be said of how it was read."""
    match = _TIME.fullmatch(text.strip())
    example = "write it as 2026-01-15 21:30:00+00; a fraction of up to 6 digits may follow the seconds"
    if not match:
        raise Refused(f"'{text}' is not a time with a numeric UTC offset", example, code=2)
    date, clock, fraction, zulu, hours, minutes = match.groups(default="")
    offset = f"{hours or '+00'}{minutes or '00'}"
    try:
        moment = datetime.strptime(f"{date} {clock}.{fraction or '0'} {offset}", "%Y-%m-%d %H:%M:%S.%f %z")
    except ValueError as error:
        raise Refused(f"'{text}' is not a time: no calendar or clock has it", example, code=2) from error
    if abs(moment.utcoffset() or timedelta()) >= timedelta(hours=16):
        raise Refused(f"'{text}' has no possible UTC offset", example, code=2)
    moment = moment.astimezone(timezone.utc)
    note = "" if hours or zulu else f"{text} has no UTC offset: taken as {format_time(moment)}"
    now = datetime.now(timezone.utc)
    if moment > now:
        raise Refused(f"{format_time(moment)} lies in the future (it is {format_time(now)})", "check date and offset")
    return moment, note


def parse(words: Sequence[str]) -> tuple[str, str]:
    """Return kind and value of a target; raise Refused unless it is well-formed."""
    if not words:
        return "default", ""
    kind, *values = words
    if kind not in {"time", "lsn", "xid", "name", "set"} or len(values) != 1 or not values[0]:
        hint = "quote a time: it is one argument" if kind == "time" and len(values) > 1 else f"TARGET is {USAGE}"
        raise Refused(f"wrong target: {' '.join(words)}", hint, code=2)
    value = values[0]
    if kind == "time":
        parse_time(value)
    if kind == "lsn":
        try:
            parse_lsn(value)
        except ValueError as error:
            raise Refused(f"'{value}' is not an LSN", "write it as 0/3000060", code=2) from error
    if kind == "xid" and not re.fullmatch("[0-9]{1,20}", value):
        raise Refused(f"'{value}' is not a transaction's number", "write it as 1234", code=2)
    if kind == "xid" and int(value) % (1 << 32) < 3:
        raise Refused(f"no transaction has the number {value}: PostgreSQL's begin with 3", "write it as 1234", code=2)
    if kind == "name" and re.search(r"['\\\x00-\x1f]", value):
        # pgBackRest writes the name into PostgreSQL's configuration as it is.
        raise Refused(
            f"'{value}' cannot be a target: it has a quote, a backslash or a control character", "use its LSN: lsn X"
        )
    return kind, value


def make_plan(words: Sequence[str]) -> Plan:
    """Return how to reach a target; raise Refused, or a Problem of what was asked, if it cannot be reached."""
    kind, value = parse(words)
    backups, identity = look_up()
    planner = Planner(backups, Archive(identity), is_up())
    options, backup, last = getattr(planner, f"plan_{kind}")(value)
    if kind != "set":
        planner.require_wal(backup, last)
        options += [f"--target-timeline={planner.archive.timeline}"]
    if options[0].startswith("--type="):
        options += ["--target-action=promote"]
    wanted = " ".join(words) or "the end of the archived WAL"
    finished = format_time(datetime.fromtimestamp(backup.stopped, timezone.utc))
    timeline = int(backup.start_segment[:8], 16) if kind == "set" else planner.archive.timeline
    older = planner.archive.newest != timeline
    return Plan(
        [f"--set={backup.label}", *options],
        [
            ("target", wanted),
            *planner.notes,
            ("backup set", f"{backup.label}, {backup.type}, finished {finished}"),
            (
                "WAL",
                f"{backup.start_segment} to {backup.stop_segment if kind == 'set' else planner.archive.name(last)}",
            ),
            ("timeline", f"{timeline}{f', an older history: the newest is {planner.archive.newest}' * older}"),
            ("database size", f"{backup.size / 1e6:,.1f} MB at the backup"),
            ("lost", "nothing that is archived" if kind == "default" else "every transaction after the target"),
        ],
    )


Steps = tuple[list[str], Backup, int]
"""pgBackRest's options, the backup to begin with, and the number of the last WAL segment that is needed."""


@dataclass
class Planner:
    """Knows backups and archive, and whether the server is up."""

    backups: list[Backup]
    archive: Archive
    up: bool
    notes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def usable(self) -> list[Backup]:
        """The backups without damage that lead to the followed timeline; raise Refused if there is none."""
        found = [b for b in self.backups if not b.damaged and self.archive.leads_here(b)]
        if not found:
            labels = ", ".join(backup.label for backup in self.backups)
            raise Refused(
                f"no backup without damage leads to timeline {self.archive.timeline}",
                f"there are: set LABEL, of {labels}",
            )
        return found

    def plan_default(self, _value: str) -> Steps:
        """To the end of the archived WAL; first, the server archives what it has."""
        if self.up:
            flush(self.archive)
        return [], self.usable[-1], self.archive.last

    def plan_set(self, label: str) -> Steps:
        """To the end of a backup."""
        backup = next((backup for backup in self.backups if backup.label == label), None)
        if not backup:
            raise Refused(f"there is no backup {label}", "there are: " + ", ".join(b.label for b in self.backups))
        if backup.damaged:
            raise Refused(f"backup {label} has pages with wrong checksums", "choose another; by hand: --set and --type")
        first, last = (self.archive.number(name) for name in (backup.start_segment, backup.stop_segment))
        for number in range(first, last + 1):
            name = backup.start_segment[:8] + self.archive.name(number)[8:]
            if name not in self.archive.names:
                raise Refused(
                    f"WAL segment {name} is missing, without which {label} is not consistent", "choose another"
                )
        return ["--type=immediate"], backup, last

    def plan_time(self, value: str) -> Steps:
        """To a time: until the first commit or abort after it, or, if there is none, until where the server is now."""
        moment, note = parse_time(value)
        self.notes += [("note", note)] if note else []
        self.archive, doubts = live_at(self.archive, moment)
        self.notes += [("note", doubt) for doubt in doubts]
        live = self.archive.timeline == self.archive.newest
        seconds = moment.timestamp()
        # info has whole seconds: a backup that stopped in the target's second may have stopped after it.
        fitting = [backup for backup in self.usable if backup.stopped < int(seconds)]
        why = "; a backup's end is known to the second only" if int(seconds) == self.usable[0].stopped else ""
        backup = self.newest(fitting, f"{format_time(moment)}", why)
        if self.up and live:
            # The place first, and then the last commit: all commits before that place are then known.
            place = insert_lsn()
            last = last_commit()
            record = None if last and moment > last + timedelta(seconds=10) else self.later(moment, backup, backup.stop)
            if not record:
                end = self.archive.last
                flush(self.archive)
                record = self.later(moment, backup, end * self.archive.size)
            if not record:
                self.notes.append(("note", f"no transaction has ended since: restored to LSN {format_lsn(place)}, now"))
                steps = ["--type=lsn", f"--target={format_lsn(place)}", "--target-exclusive"]
                return steps, backup, self.archive.last
        else:
            record = self.later(moment, backup, backup.stop)
        if not record and not live:
            text = f"timeline {self.archive.timeline} has no transaction that ended later: restored to the end of it"
            self.notes.append(("note", text))
            return [], backup, self.archive.last
        if not record:
            return self.at_last_commit(moment, backup)
        return ["--type=time", f"--target={format_time(moment)}"], backup, record.lsn // self.archive.size

    def later(self, moment: datetime, backup: Backup, since: int) -> Record | None:
        """Return a commit or abort after the moment, and after ``since``, an LSN."""
        records = self.archive.search(since // self.archive.size, "Transaction", moment.timestamp())
        return next((r for r in records if r.when and r.when > moment and r.lsn >= backup.stop), None)

    def at_last_commit(self, moment: datetime, backup: Backup) -> Steps:
        """To the very last commit; any later time may lack transactions, as the server is down and cannot tell."""
        records = self.archive.search(backup.stop // self.archive.size, "Transaction")
        last = next((record for record in records if record.when and record.lsn >= backup.stop), None)
        if last and last.when == moment:
            return ["--type=lsn", f"--target={format_lsn(last.lsn)}"], backup, last.lsn // self.archive.size
        newest = f"the last transaction there, {format_time(last.when)}" if last and last.when else "the newest backup"
        self.require_wal(backup, self.archive.last)
        raise Refused(
            f"{format_time(moment)} lies after all archived WAL: the newest recoverable moment is {newest}",
            "restore without a target: to the end of the archived WAL",
        )

    def plan_lsn(self, value: str) -> Steps:
        """To the first record at or after an LSN, including it."""
        lsn = parse_lsn(value)
        backup = self.newest([backup for backup in self.usable if backup.stop <= lsn], f"LSN {value}")
        record = at_or_after(self.archive, lsn)
        written = insert_lsn() if self.up else 0
        if not record and lsn > written:
            refuse_left(self.archive, f"LSN {value}", lambda along, _since: at_or_after(along, lsn), lsn)
        if not record and self.up:
            if lsn > written:
                message = f"LSN {value} lies after all that was written: the server is at {format_lsn(written)}"
                raise Refused(message, EARLIER)
            flush(self.archive)
            record = at_or_after(self.archive, lsn)
        if not record:
            name = self.archive.name(self.archive.last)
            raise Refused(f"LSN {value} lies after all archived WAL, which ends with segment {name}", EARLIER)
        return ["--type=lsn", f"--target={value}"], backup, record.lsn // self.archive.size

    def plan_xid(self, value: str) -> Steps:
        """To the end of a transaction, including it."""
        xid = int(value) % (1 << 32)  # WAL has the lower 32 bits
        near = None
        if self.up:
            self.try_flush()
            near = committed_at(xid)
        record = find_end(self.archive, xid, self.usable[0].start, near)
        if not record:
            refuse_left(self.archive, f"transaction {value}", lambda along, since: find_end(along, xid, since))
            raise Refused(
                f"transaction {value} does not end in the archived WAL", "a subtransaction's number is no target"
            )
        backup = self.newest([backup for backup in self.usable if backup.stop <= record.lsn], f"transaction {value}")
        return ["--type=xid", f"--target={xid}"], backup, record.lsn // self.archive.size

    def plan_name(self, value: str) -> Steps:
        """To a restore point: the newest of that name."""
        if self.up:
            self.try_flush()
        first = self.archive.number(self.usable[0].start_segment)
        others: list[str] = []
        found = None
        for record in self.archive.search(first, "XLOG"):
            point = _POINT.match(record.text)
            if point and point[1] == value:
                found = record
                break
            others += [point[1]] if point and not re.match("pgBackRest|restore planned", point[1]) else []
        if not found:
            refuse_left(self.archive, f"restore point '{value}'", lambda along, since: find_point(along, value, since))
            near = get_close_matches(value, others, 3) or others[:10]
            hint = f"did you mean {' or '.join(near)}?" if near else "there is none of any name"
            raise Refused(f"the archived WAL holds no restore point '{value}'", hint)
        backup = self.newest([b for b in self.usable if b.stop <= found.lsn], f"restore point '{value}'")
        for number in range(backup.start // self.archive.size, found.lsn // self.archive.size + 1):
            for record in self.archive.records(number, "--rmgr=XLOG") if number in self.archive.files else ():
                if record.text == found.text and backup.start <= record.lsn < found.lsn:
                    raise Refused(
                        f"restore point '{value}' is there twice, and PostgreSQL would stop at the first",
                        f"choose by place: lsn {format_lsn(record.lsn)} or lsn {format_lsn(found.lsn)}",
                    )
        return ["--type=name", f"--target={value}"], backup, found.lsn // self.archive.size

    def newest(self, fitting: list[Backup], what: str, why: str = "") -> Backup:
        """Return the last of the backups that end before the target."""
        if not fitting:
            oldest = self.usable[0]
            moment = format_time(datetime.fromtimestamp(oldest.stopped + 1, timezone.utc))
            raise Refused(
                f"{what} lies before the end of the oldest backup that leads there, {oldest.label}",
                f"the oldest recoverable moment is {moment}, LSN {format_lsn(oldest.stop)}{why}",
            )
        return fitting[-1]

    def require_wal(self, backup: Backup, last: int) -> None:
        """Raise Refused if a segment on the way is missing; recovery would take that for the end of WAL."""
        first = self.archive.number(backup.start_segment)
        hole = self.archive.hole(first, last)
        if hole is None:
            return
        numbers = [number for number in range(first, hole) if number in self.archive.files]
        times = (
            record.when
            for number in reversed(numbers)
            for record in reversed(self.archive.records(number, "--rmgr=Transaction"))
            if record.when and record.lsn >= backup.stop
        )
        until = next(times, None)
        before = f"a time before {format_time(until)}, or " if until else ""
        how = "twice, with different content," if hole in self.archive.double else "not"
        raise Refused(
            f"WAL segment {self.archive.name(hole)} is {how} in the archive, so backup {backup.label} leads no further",
            f"still possible: {before}set {backup.label}",
        )

    def try_flush(self) -> None:
        """Let the server archive all that it has written; where it cannot, what the repository has must do."""
        try:
            flush(self.archive)
        except Refused as refused:
            self.notes.append(("note", refused.message))


def at_or_after(archive: Archive, lsn: int) -> Record | None:
    """Return the first record there, without which PostgreSQL would not stop."""
    for number in range(lsn // archive.size, max(archive.files, default=0) + 1):
        if number in archive.files:
            for record in archive.records(number, "--limit=1", start=lsn):
                return record
    return None


def find_end(archive: Archive, xid: int, since: int, near: float | None = None) -> Record | None:
    """Return the end of a transaction from an LSN on; ``near`` is when it was, in seconds since 1970."""
    records = archive.search(since // archive.size, "Transaction", near)
    return next((r for r in records if r.when and r.xid == xid and r.lsn >= since), None)


def find_point(archive: Archive, name: str, since: int) -> Record | None:
    """Return the newest restore point of a name from an LSN on."""
    records = archive.search(since // archive.size, "XLOG")
    return next((r for r in records if r.text == f"RESTORE_POINT {name}" and r.lsn >= since), None)
