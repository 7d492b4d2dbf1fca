"""The check of the backups: whether they are recent, and the repository has what info says it has.

Standard library only.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from memory import Memory, is_recent
from probes import STANZA, Findings, Problem, broken, limit, period, some
from repository import Refused, fetch
from snapshot import Snapshot, look
from workers import expected_frequency, first_backup_is_due

CLOCKS = 60  # seconds by which clocks of two hosts may differ
SETTLED = 2  # seconds after which a file that is written again has another time, which is told in whole ones
MANIFESTS = ("backup.manifest", "backup.manifest.copy")


def backups() -> Findings:
    """Judge the backups of each repository."""
    for snapshot in look():
        prefixed = (prefix(snapshot.name, finding) for finding in judge(snapshot))
        yield from prefixed


def prefix(name: str, finding: str | Problem) -> str | Problem:
    """Put the repository's name before what was seen in it."""
    if isinstance(finding, Problem):
        return Problem(finding.status, name + finding.seen, finding.hint, finding.code)
    return name + finding


def judge(snapshot: Snapshot) -> Findings:
    """Judge one repository's."""
    mine = snapshot.present
    yield from judge_files(snapshot.backups, snapshot.files)
    memory = Memory(f"copies-{snapshot.key}")
    for part, files in (("archive", snapshot.archive), ("backup", snapshot.files)):
        yield from judge_copy(part, files, snapshot.options, memory)
    memory.save()
    yield from judge_references(snapshot.backups)
    yield from judge_times(snapshot.backups)
    if not mine:
        yield from judge_none(snapshot.key)
        return
    yield from judge_ages(mine)
    yield from judge_window(mine, snapshot.key)
    yield from judge_sizes(mine)
    newest = mine[-1]
    damage = f"backup {newest['label']} found pages with wrong checksums"
    yield from broken((not newest.get("error"), "critical", damage, "the database is damaged: pgbackrest info --set"))
    yield f"backups: {len(mine)}, newest: {newest['label']}"


def judge_none(key: int) -> Findings:
    """Judge for how long there has been no backup at all."""
    memory = Memory(f"none-{key}")
    since = time.time() - memory.setdefault("since", time.time())
    memory.save()
    if not first_backup_is_due():
        yield "the first backup is about to be taken"
    else:
        status = "warning" if since < limit("DATABASE_BACKUP_LIMIT") else "critical"
        yield Problem(status, "no valid backups (status 2): nothing can be restored", "backup.sh takes one")


def judge_ages(mine: list[dict[str, Any]]) -> Findings:
    """Judge when the last full backup ended, and the last of all."""
    took, frequency = limit("DATABASE_BACKUP_LIMIT"), expected_frequency()
    full_age = period("IOP_FULL_BACKUP_AGE") or 0
    fulls = [entry for entry in mine if entry["type"] == "full"]
    if not fulls:
        yield Problem("critical", "no full backup", "backup.sh full takes one")
    else:
        age, most = time.time() - fulls[-1]["timestamp"]["stop"], full_age + (frequency or 0) + took
        seen = f"the last full backup {fulls[-1]['label']} is {age:.0f} s old, more than {most}"
        yield from broken((age <= most, "critical", seen, "see the backup worker's log; backup.sh full takes one"))
    if frequency:
        age, most = time.time() - mine[-1]["timestamp"]["stop"], frequency + took
        seen = f"the last backup {mine[-1]['label']} is {age:.0f} s old, more than {most}"
        yield from broken((age <= most, "critical", seen, "see the backup worker's log"))


def judge_window(mine: list[dict[str, Any]], key: int) -> Findings:
    """Judge how far back a restore reaches, where a window is demanded and backups have been taken for so long."""
    window = period("IOP_RECOVERY_WINDOW")
    memory = Memory(f"window-{key}")
    since = memory.setdefault("first", mine[0]["timestamp"]["stop"])
    memory.save()
    if window:
        reaches = time.time() - mine[0]["timestamp"]["stop"]
        seen = f"a restore reaches {reaches:.0f} s back, less than {window}"
        enough = reaches + CLOCKS >= min(window, time.time() - since)
        yield from broken((enough, "warning", seen, "raise repo1-retention-full; were backups removed?"))


def judge_times(entries: Iterable[Mapping[str, Any]]) -> Findings:
    """Judge the times of backups: a clock that was wrong makes ages, expiry and time targets wrong."""
    latest = time.time() + CLOCKS
    early = [entry["label"] for entry in entries if max(entry["timestamp"].values()) > latest]
    hint = "set the clock right, expire --set=LABEL, rm its file in backup.history: until then no other can be taken"
    yield from broken((not early, "critical", f"taken in the future: backup {some(early)}", hint))


def judge_references(entries: list[dict[str, Any]]) -> Findings:
    """Judge whether the backups are there that others build on."""
    labels = {entry["label"] for entry in entries}
    for entry in entries:
        gone = {*(entry.get("reference") or ()), *filter(None, [entry.get("prior")])} - labels
        seen = f"backup {entry['label']} builds on {some(sorted(gone))}, which is gone"
        yield from broken((not gone, "critical", seen, "take a full backup"))


def judge_files(entries: Iterable[Mapping[str, Any]], files: Mapping[str, Mapping[str, Any]]) -> Findings:
    """Compare what is listed with what lies there: info's delta is the sum of all files but the manifests."""
    sizes: dict[str, int] = defaultdict(int)
    for path, entry in files.items():
        label, _, rest = path.partition("/")
        if entry["type"] == "file" and rest not in MANIFESTS:
            sizes[label] += entry["size"]
    for entry in entries:
        label, told = entry["label"], (entry["info"].get("repository") or {}).get("delta")
        lost = [name for name in MANIFESTS if not files.get(f"{label}/{name}", {}).get("size")]
        if label not in files:
            yield Problem("critical", f"backup {label} is listed, but not there", "put it back, or take a full backup")
        elif MANIFESTS[0] in lost:
            bare = f"backup {label} has no {MANIFESTS[0]}"
            yield Problem("critical", bare, "put it back; pgBackRest would use the copy if it is there")
        elif lost:
            yield Problem("warning", f"backup {label} has no {some(lost)}", "put it back, or take a full backup")
        elif told is not None and sizes[label] != told:
            seen = f"backup {label} has {sizes[label]} bytes of files, not {told}: some are gone, cut off or foreign"
            yield Problem("critical", seen, "put them back, or take a full backup; pgbackrest verify names them")


def judge_copy(
    part: str, files: Mapping[str, Mapping[str, Any]], options: Iterable[str], memory: dict[str, Any]
) -> Findings:
    """Judge whether a file that says what there is has a copy just like it: pgBackRest falls back to the copy unseen.

    They are written one after the other, so that they may differ for a moment. Both are read again when one of them has
    changed, and after a minute all the same; ``memory`` has those that were equal.
    """
    names = (f"{part}.info", f"{part}.info.copy")
    lost = [name for name in names if not files.get(name, {}).get("size")]
    if lost:
        yield Problem("warning", f"{some(lost)} is missing or empty", "copy the other one in its place")
        return
    begun, seen = time.time(), [[files[name]["size"], files[name]["time"]] for name in names]
    known = memory.pop(part, {})
    if known.get("equal") == seen and is_recent(known["at"]):
        memory[part] = known
        return
    for _ in range(3):
        try:
            first, second = (fetch(f"{part}/{STANZA}/{name}", "", *options) for name in names)
        except Refused as refused:
            yield Problem("warning", refused.message, "copy the other one in its place")
            return
        if first == second:
            if max(when for _, when in seen) < begun - SETTLED:
                memory[part] = {"equal": seen, "at": begun}
            return
        time.sleep(0.5)
    hint = "one is damaged (the checksum inside tells which): copy the other one in its place, as the next backup will"
    yield Problem("warning", f"{names[0]} and its copy differ", hint)


def judge_sizes(mine: list[dict[str, Any]]) -> Findings:
    """Compare the newest backup with those of its type before it."""
    newest = mine[-1]
    earlier = [entry["info"]["size"] for entry in mine[:-1] if entry["type"] == newest["type"]]
    if earlier:
        usual, size, factor = statistics.median(earlier), newest["info"]["size"], limit("IOP_SIZE_CHANGE")
        seen = f"the database in backup {newest['label']} is {size} bytes, in those before it {usual:.0f}"
        rule = usual / factor <= size <= usual * factor
        yield from broken((rule, "warning", seen, "is it the right database? was data lost?"))
