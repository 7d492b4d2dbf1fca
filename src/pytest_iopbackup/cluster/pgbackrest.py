"""pgBackRest's verbs, and what its ``info`` says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import Any

from pytest_iopbackup.errors import DeadlineError, IopError
from pytest_iopbackup.limits import Limits, wait_until
from pytest_iopbackup.record import BackupFacts
from pytest_iopbackup.stack.base import CommandResult, LineListener, Restorable, Service

Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all, in any unit."""

_PERCENT = re.compile(r"DETAIL: .*, (\d+(?:\.\d+)?)%\)")
_HISTORY_LINE = re.compile(r"\s*(\d+)\s+([0-9A-F]+/[0-9A-F]+)")
_JSON = re.compile(r"^[\[{].*", re.MULTILINE | re.DOTALL)
_TIME_OPTION = re.compile(r"^(?:current|default): (?P<value>\d+(?:\.\d+)?)(?P<unit>ms|[smhdw])?$", re.MULTILINE)
"""The value in force stands before the default."""
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_READY = re.compile(r"([0-9A-F]{24})\.ready")
_DETAIL = {"PGBACKREST_LOG_LEVEL_CONSOLE": "detail"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """What the repository holds for the stanza, backups oldest first.

    Without those that were taken offline (``--no-online``): no WAL belongs to them, so nothing is recovered from there.
    """

    backups: tuple[BackupFacts, ...]
    archive_id: str | None
    """The current archive, such as ``15-1``."""
    newest_wal: str | None


def info(stack: Restorable, limits: Limits) -> Info:
    """Ask ``pgbackrest info``. It exits 0 on a broken repository, so its status code is read.

    Raises IopError when the stanza's status is neither 0 (ok) nor 2 (no valid backups).
    """
    result = stack.host(Service.BACKUP).run(["pgbackrest", "info", "--output=json"], timeout=limits.command)
    stanzas: list[dict[str, Any]] = [entry for entry in json_in(result) if entry["name"] == stack.stanza]
    if not stanzas or stanzas[0]["status"]["code"] not in {0, 2}:
        said = stanzas[0]["status"]["message"] if stanzas else "it does not know the stanza"
        raise IopError(
            f"pgbackrest info on stanza {stack.stanza!r}: {said}", hint="run 'pgbackrest check' on the stack"
        )
    stanza = stanzas[0]
    archive = stanza["archive"][-1] if stanza["archive"] else None
    return Info(
        backups=tuple(_backup(entry) for entry in stanza["backup"] if _usable(entry)),
        archive_id=archive["id"] if archive else None,
        newest_wal=archive["max"] if archive else None,
    )


def backup(stack: Restorable, kind: str, limits: Limits, progress: Progress | None = None) -> BackupFacts:
    """Take a backup with the stack's own ``backup.sh``: ``full``, ``diff``, or ``auto`` (it decides itself)."""
    before = {entry.label for entry in info(stack, limits).backups}
    script = str(stack.places.configuration / "backup.sh")
    stack.host(Service.BACKUP).run(
        ["bash", script, *([] if kind == "auto" else [kind])],
        timeout=limits.backup,
        env=_DETAIL,
        listener=percent_listener(progress),
    )
    new = [entry for entry in info(stack, limits).backups if entry.label not in before]
    if len(new) != 1:
        labels = ", ".join(entry.label for entry in new) or "none"
        raise IopError(f"backup.sh ended with exit code 0, but pgbackrest info lists as new: {labels}; expected one")
    return new[0]


def restore(stack: Restorable, options: list[str], limits: Limits, progress: Progress | None = None) -> CommandResult:
    """Run ``pgbackrest restore`` into the stack's data directory."""
    return stack.restore(options, timeout=limits.restore, env=_DETAIL, listener=percent_listener(progress))


def seconds_of(stack: Restorable, command: str, option: str, limits: Limits) -> float:
    """Return an option that is a time, in seconds, as a command finds it in files and environment.

    Raises IopError where it says none.
    """
    asked = stack.host(Service.BACKUP).run(["pgbackrest", "help", command, option], timeout=limits.command)
    found = _TIME_OPTION.search(asked.stdout)
    if found is None:
        raise IopError(f"no value of {option} in what was printed: {asked.describe()}")
    return float(found["value"]) * _UNITS[found["unit"] or "s"]


def archived(stack: Restorable, archive_id: str, segment: str, limits: Limits) -> bool:
    """Whether a WAL segment is in the repository, by a look into it: ``pg_stat_archiver`` only says what was tried."""
    directory = PurePosixPath("archive", stack.stanza, archive_id, segment[:16])
    names = listing(stack, directory, limits)
    return any(name.startswith(f"{segment}-") and not name.endswith(".tmp") for name in names)


def await_archived(stack: Restorable, segment: str, limits: Limits) -> None:
    """Wait until a WAL segment is in the repository, and with it all that are still to be archived before it.

    pgBackRest pushes several side by side, so the last one may be the first to be there. Those that PostgreSQL has
    counted as archived are not waited for: what is not there of them is lost. Raises DeadlineError.
    """
    archive_id = wait_until(lambda: info(stack, limits).archive_id, limit=limits.archive, what="the first archived WAL")
    missing: list[str] = []

    def there() -> bool:
        wanted = _ready_before(stack, segment, limits) if archived(stack, archive_id, segment, limits) else [segment]
        missing[:] = [one for one in wanted if one == segment or not archived(stack, archive_id, one, limits)]
        return not missing

    try:
        wait_until(there, limit=limits.archive, what=f"WAL segment {segment} to reach the repository")
    except DeadlineError as error:
        earlier = "" if missing == [segment] else f": {', '.join(missing)} before it, still to be archived, did not"
        raise DeadlineError(
            f"{error.message}{earlier}", hint="see PostgreSQL's log for what archive_command said"
        ) from error


def _ready_before(stack: Restorable, segment: str, limits: Limits) -> list[str]:
    """Name the segments before one that PostgreSQL has yet to see archived: it need not run. None without its data.

    Source: the ``.ready`` files in ``pg_wal/archive_status`` (PostgreSQL's ``pgarch.c``).
    """
    directory = str(stack.places.data / "pg_wal" / "archive_status")
    argv = ["sh", "-c", 'test ! -d "$1" || ls "$1"', "sh", directory]
    names = stack.host(Service.BACKUP).run(argv, timeout=limits.command).stdout.split()
    ready = (match[1] for match in map(_READY.fullmatch, names) if match)
    return sorted(name for name in ready if name < segment)


def lineage(stack: Restorable, archive_id: str, timeline: int | None, limits: Limits) -> dict[int, str | None]:
    """Return a timeline and its ancestors, each with the LSN at which it was left (None for the timeline itself).

    ``timeline`` None means the newest in the repository. Source: the archived ``.history`` files.
    """
    directory = PurePosixPath("archive", stack.stanza, archive_id)
    histories = {int(name[:8], 16): name for name in listing(stack, directory, limits) if name.endswith(".history")}
    newest = timeline if timeline is not None else max(histories, default=1)
    line: dict[int, str | None] = {newest: None}
    if newest in histories:
        content = stack.host(Service.BACKUP).run(
            ["pgbackrest", "repo-get", str(directory / histories[newest])], timeout=limits.command
        )
        for match in map(_HISTORY_LINE.match, content.stdout.splitlines()):
            if match:
                line[int(match[1])] = match[2]
    return line


def percent_listener(progress: Progress | None) -> LineListener | None:
    """Turn pgBackRest's detail lines, which end in ``(8KB, 12.3%)``, into progress."""
    if progress is None:
        return None

    def listen(line: str) -> None:
        match = _PERCENT.search(line)
        if match:
            progress(int(float(match[1]) * 10), 1000)

    return listen


def listing(stack: Restorable, directory: PurePosixPath, limits: Limits, *, recurse: bool = False) -> list[str]:
    """Return the names in a directory of the repository, with ``recurse`` relative paths of all below it."""
    argv = ["pgbackrest", "repo-ls", "--output=json", *(["--recurse"] if recurse else []), str(directory)]
    return list(json_in(stack.host(Service.BACKUP).run(argv, timeout=limits.command)))


def json_in(result: CommandResult) -> Any:
    """Return the JSON that pgBackRest printed; from 2.53 on, warnings of its configuration may stand before it.

    Raises IopError where there is none.
    """
    document = _JSON.search(result.stdout)
    if document is None:
        raise IopError(f"no JSON in what was printed: {result.describe()}")
    return json.loads(document[0])


def _usable(entry: dict[str, Any]) -> bool:
    return not entry.get("error") and bool(entry["archive"]["start"])


def _backup(entry: dict[str, Any]) -> BackupFacts:
    def moment(which: str) -> datetime:
        return datetime.fromtimestamp(entry["timestamp"][which], tz=timezone.utc)

    return BackupFacts(
        label=entry["label"],
        type=entry["type"],
        prior=entry["prior"],
        database_size=entry["info"]["size"],
        repository_size=entry["info"]["repository"]["delta"],
        started=moment("start"),
        stopped=moment("stop"),
        start_lsn=entry["lsn"]["start"],
        stop_lsn=entry["lsn"]["stop"],
        start_wal=entry["archive"]["start"],
        stop_wal=entry["archive"]["stop"],
    )
