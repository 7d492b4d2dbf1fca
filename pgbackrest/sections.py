"""The sections of status.py's screen: what each says of the facts, and the questions behind them."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from probes import STANZA, Problem, ask, query, said, stanza_in
from snapshot import judge_info

SERVICES = ("database", "pgbackrest", "pgbackrest_backup", "pgbackrest_check")
STATE = Path(os.environ.get("IOP_STATE_PATH") or "/var/lib/iop-backup")
DATA = Path(os.environ.get("PGDATA", "/var/lib/postgresql/data"))
MARKER = Path(f"{DATA}.restore")
RESTORING = {"database_wipe", "pgbackrest_restore"}  # services
ARCHIVER = """
SELECT to_json(found) FROM (
    SELECT *, coalesce(last_commit <= archived_until, false) AS all_archived FROM (
        SELECT last_archived_wal AS archived, extract(epoch FROM last_archived_time) AS archived_at,
            last_failed_wal AS failed,
            coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) AS failing,
            (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready') AS ready,
            (SELECT extract(epoch FROM max(modification)) FROM pg_ls_waldir()
                WHERE name = left(last_archived_wal, 24)) AS archived_until,
            CASE WHEN current_setting('track_commit_timestamp') = 'on' THEN
                (SELECT extract(epoch FROM timestamp) FROM pg_last_committed_xact()) END AS last_commit
        FROM pg_stat_archiver
    ) AS archiver
) AS found"""


@dataclass(frozen=True)
class Row:
    """One line of the screen. ``mood`` is good, note (worth a look), bad (exit code 1) or nothing."""

    label: str
    text: str
    mood: str = ""


Rows = Iterator[Row]


def seconds(moment: str) -> float:
    """Return a time of Docker's, the workers' or a report's as seconds since 1970; Docker has nanoseconds."""
    text = re.sub(r"(\.\d{1,6})\d*", lambda found: found[1].ljust(7, "0"), moment.replace("Z", "+00:00"))
    return datetime.fromisoformat(text).timestamp()


def when(moment: float) -> str:
    """Return the time in UTC and how long ago that was."""
    return f"{datetime.fromtimestamp(moment, timezone.utc):%Y-%m-%d %H:%M:%S} UTC, {duration(time.time() - moment)} ago"


def duration(span: float) -> str:
    """Return a number of seconds as people say it."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if span >= 2 * size:
            return f"{span / size:.0f} {unit}"
    return f"{max(span, 0):.0f} s"


def size(count: float) -> str:
    """Return a number of bytes as people say it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def services(containers: Iterable[Mapping[str, Any]]) -> Rows:
    """Say of each service whether it runs, since when, and what its health check complains of."""
    ours = {entry["service"]: entry for entry in containers if entry["oneoff"] != "True"}
    for name in SERVICES:
        yield service(name, ours[name]) if name in ours else Row(name, "absent: ./control.sh up", "bad")


def service(name: str, container: Mapping[str, Any]) -> Row:
    """Judge one container."""
    state = container["state"]
    health = state.get("Health") or {"Status": "none", "Log": None}
    running = state["Status"] == "running"
    moment = when(seconds(state["StartedAt" if running else "FinishedAt"])) if state["Status"] != "created" else "never"
    restarts = f", restarted {container['restarts']} times" if container["restarts"] else ""
    if running and health["Status"] == "healthy":
        return Row(name, f"healthy, since {moment}{restarts}", "good")
    said = " ".join(health["Log"][-1]["Output"].split()) if health["Log"] else ""
    if running:
        return Row(name, f"{health['Status']}, since {moment}{restarts}{said and ': '}{said}", "bad")
    reason = state.get("Error") or f"exit code {state['ExitCode']}: ./control.sh logs {name}"
    return Row(name, f"{state['Status']}, since {moment}{restarts}; {reason}", "bad")


def backups(stanza: Mapping[str, Any]) -> Rows:
    """Say which are the last backups, and when the next one is due."""
    mine = present(stanza)
    try:
        state = json.loads((STATE / "backup.json").read_text())
    except FileNotFoundError:
        state = {"state": "absent", "last": None}
    running = state["state"] == "running"
    if not mine and not running:
        yield Row("none", "no backup, and none is being taken: ./control.sh backup full", "bad")
    for label, kind in (("last full", "full"), ("last differential", "diff")):
        backup = max((entry for entry in mine if entry["type"] == kind), key=ended, default=None)
        if backup is None:
            yield Row(label, "none yet", "" if kind == "diff" else "note")
            continue
        sizes = f"database {size(backup['info']['size'])}, repository {size(backup['info']['repository']['delta'])}"
        mood, damage = ("bad", "; found damaged pages") if backup.get("error") else ("good", "")
        yield Row(label, f"{backup['label']}, {duration(time.time() - ended(backup))} ago{damage}\n{sizes}", mood)
    if running:
        yield Row("next", "is being taken now")
    elif state["last"]:
        due = seconds(state["last"]["started"]) + state["frequency"] - time.time()
        yield Row("next", f"in {duration(due)}" if due > 0 else "due")


def ended(backup: Mapping[str, Any]) -> float:
    """Return when a backup was complete."""
    return float(backup["timestamp"]["stop"])


def present(stanza: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the backups of the present cluster; those before an upgrade are of no use to it."""
    return [entry for entry in stanza["backup"] if entry["database"]["id"] == stanza["db"][-1]["id"]]


def recovery(stanza: Mapping[str, Any], server: Mapping[str, Any] | Problem) -> Rows:
    """Say what can be recovered, and how archiving goes."""
    usable = [ended(entry) for entry in present(stanza) if not entry.get("error")]
    # Of whatever timeline: a restore to a time follows the one of then. A backup's end is known to the second only, so
    # the next second is the first that a restore takes.
    yield Row("oldest moment", when(min(usable) + 1)) if usable else Row("oldest moment", "none: no backup yet", "note")
    archives = [entry["max"] for entry in stanza["archive"] if entry["database"]["id"] == stanza["db"][-1]["id"]]
    newest = max(filter(None, archives), default=None)
    if isinstance(server, Problem):
        uploaded = f", in the repository since {when(upload_time(stanza, newest))}" if newest else ""
        yield Row("newest moment", f"the end of {newest}{uploaded}" if newest else "none: no WAL archived")
        yield Row("WAL archiving", f"the server does not answer: {server.seen}", "bad")
        return
    if server["all_archived"]:
        yield Row("newest moment", f"now: the last commit, {when(server['last_commit'])}, is archived")
    elif server["archived_until"]:
        yield Row("newest moment", when(server["archived_until"]))
    else:
        yield Row("newest moment", f"the end of {newest}" if newest else "none: no WAL archived yet", "note")
    last = f"{server['archived']}, {when(server['archived_at'])}" if server["archived"] else "nothing yet"
    waiting = f"; waiting segments: {server['ready']}"
    if server["failing"]:
        yield Row("WAL archived last", f"{last}{waiting}; {server['failed']} FAILED: see PostgreSQL's log", "bad")
    else:
        yield Row("WAL archived last", last + waiting, "good")


def upload_time(stanza: Mapping[str, Any], segment: str) -> float:
    """Return when the segment came to the repository, for a server that cannot be asked."""
    archive = max((entry for entry in stanza["archive"] if entry["max"] == segment), key=lambda entry: entry["id"])
    path = f"archive/{STANZA}/{archive['id']}/{segment[:16]}"
    answer = ask("pgbackrest", "repo-ls", "--output=json", path)
    listing = re.search(r"^\{.*", answer.stdout, re.MULTILINE | re.DOTALL)
    files = json.loads(listing.group()) if listing else {}
    return max(float(entry["time"]) for name, entry in files.items() if name.startswith(segment))


def ask_repository() -> dict[str, Any]:
    """Return what ``pgbackrest info`` knows of the stanza; raise a problem if that is not all there is."""
    answer = ask("pgbackrest", "info", "--output=json")
    for problem in said(answer):
        if problem.status == "critical":
            raise problem
    stanza = stanza_in(answer.stdout, STANZA)
    for problem in judge_info(stanza["repo"]):
        raise problem
    return stanza


def ask_server() -> dict[str, Any]:
    """Ask PostgreSQL how far its WAL is archived.

    A segment was written for the last time when its file was: all commits until then are in the archive with it.
    """
    return dict(query(ARCHIVER))


def checks() -> Rows:
    """Repeat what the check worker found last."""
    report = json.loads((STATE / "check-status.json").read_text())
    moods = {"ok": "good", "warning": "note"}
    for check in report["checks"]:
        hint = f" HINT: {check['hint']}" if check["hint"] else ""
        text = "ok" if check["status"] == "ok" else f"{check['status'].upper()}: {check['seen']}{hint}"
        yield Row(check["name"], text, moods.get(check["status"], "bad"))
    yield Row("finished", when(seconds(report["finished"])))


def space(path: str) -> tuple[int, int]:
    """Return free and all bytes of a file system; one that hangs ends in a :class:`Problem`."""
    answer = ask("df", "--block-size=1", "--output=avail,size", path)
    if answer.returncode:
        raise Problem("unknown", " ".join(answer.stderr.split()), "")
    available, total = answer.stdout.split()[-2:]
    return int(available), int(total)


def volume(name: str, path: str) -> Rows:
    """Say how much space a volume has left; below 5 percent is bad."""
    free, total = space(path)
    percent = 100 * free / max(total, 1)
    mood = "bad" if percent < 5 else "note" if percent < 10 else "good"
    yield Row(name, f"{size(free)} free of {size(total)} ({percent:.0f} %)", mood)


def restore(containers: Iterable[Mapping[str, Any]]) -> Rows:
    """Say whether a restore is going on, or was left unfinished."""
    alive = [entry for entry in containers if entry["service"] in RESTORING and entry["state"]["Running"]]
    steps = [entry["name"].strip("/") for entry in alive]
    if not MARKER.exists():
        if steps:
            yield Row("running", f"in {', '.join(steps)}", "note")
        return
    marker = json.loads(MARKER.read_text())
    target = shlex.join(marker["target"])
    aim = target or "the end of the archived WAL"
    begun = f"stage {marker['stage']}, to {aim}, begun {when(seconds(marker['started']))}"
    if steps:
        yield Row("running", f"{begun}; in {', '.join(steps)}", "bad")
        return
    again = f"./control.sh restore TOKEN{target and ' '}{target}"
    if marker["stage"] == "planned":
        yield Row("not carried out", f"{begun}; nothing was deleted; to carry it out: {again}", "note")
    elif marker["stage"] == "restored" and (DATA / "PG_VERSION").exists() and not (DATA / "recovery.signal").exists():
        missing = "restored, but the full backup after it is missing: ./control.sh backup full"
        yield Row("no full backup", f"{begun}: {missing}", "bad")
    else:
        starts = "" if marker["stage"] == "restored" else "; the database does not start on it"
        yield Row("UNFINISHED", f"{begun}{starts}; to finish it: {again}", "bad")


def drill(record: str, compose_file: str = "") -> Rows:
    """Say how the last drill ended; one of another compose.yaml than that with this checksum proves nothing here."""
    if not record.strip():
        yield Row("never", "backups are not reliable until a restore was tested: ./control.sh drill", "note")
        return
    report = json.loads(record)
    # A drill without containers has none.
    drilled = {scenario.get("configuration", {}).get("compose.yaml") for scenario in report.get("scenarios", [])}
    if compose_file and drilled - {None, compose_file}:
        text = f"{report['verdict']} {when(seconds(report['finished']))}, but with another compose.yaml"
        yield Row("of another system", f"{text}: ./control.sh drill", "note")
        return
    mood = "good" if report["verdict"] == "passed" else "bad"
    yield Row(report["verdict"], when(seconds(report["finished"])), mood)
