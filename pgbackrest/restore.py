"""The steps of a restore, for restore.sh, which has checked the token. Python 3.9 or later, standard library only.

From the first deleted byte to the last restored one, $PGDATA.restore (JSON) says how far it has got: database.sh does
not start PostgreSQL in between, and the same restore, run again, goes on. Whoever changes the data directory holds
$PGDATA.lock, as the running server does; the kernel keeps it as long as one of their processes lives, in whatever
container.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import targets
from probes import STANZA, Problem, ask, stop
from repository import Refused, look_up
from server import is_up
from unarchived import keep_unarchived, links, unarchived

DATA = Path(os.environ.get("PGDATA", ""))
MARKER = Path(f"{DATA}.restore")
IN_USE = 3
LOCK_PATIENCE = 5
"""Seconds: core.sh holds the lock for a moment, whenever it sees that a data directory has come."""
HALF = {"wiping", "wiped", "restoring", "failed"}
"""Stages in which the data directory is not to be used."""


@dataclass(frozen=True)
class Marker:
    """How far a restore has got, to which target, with which options; ``workflow``: it ends with ``finish``."""

    stage: str
    target: list[str]
    options: list[str]
    started: str
    workflow: bool
    version: int = 1

    def save(self) -> Marker:
        """Replace the file as a whole, and make sure that it survives a power failure."""
        new = Path(f"{MARKER}.new")
        with new.open("w") as file:
            file.write(json.dumps(asdict(self)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(MARKER)
        sync(MARKER.parent)
        return self

    def at(self, stage: str) -> Marker:
        """Return and save the marker with another stage."""
        return replace(self, stage=stage).save()


def new_marker(stage: str, words: Sequence[str] = (), options: Sequence[str] = (), *, workflow: bool = False) -> Marker:
    """Return a marker of a restore that begins now."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Marker(stage, list(words), list(options), now, workflow)


def read_marker() -> Marker | None:
    """Return the marker, if there is one; one that cannot be read is of a restore that nothing is known of."""
    try:
        return Marker(**json.loads(MARKER.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        say(f"WARNING: {MARKER} cannot be read: taken for an interrupted restore")
        return new_marker("restoring")


def marker_bytes() -> bytes | None:
    """Return what the marker holds: while it stays the same, nothing was touched."""
    try:
        return MARKER.read_bytes()
    except OSError:
        return None


def remove_marker() -> None:
    """Remove the marker for good."""
    MARKER.unlink(missing_ok=True)
    sync(MARKER.parent)


def sync(directory: Path) -> None:
    """Make sure that a change of the directory's entries survives a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def say(text: str) -> None:
    """Tell people."""
    sys.stderr.write(f"{text}\n")


def take_lock() -> int:
    """Return the lock, held; raise Refused while a server or another restore works on the data directory."""
    lock = os.open(f"{DATA}.lock", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() > deadline or ask("pg_isready", "--quiet").returncode in {0, 1}:
                message = f"{DATA} is in use"
                raise Refused(message, "stop the database, or wait for the other restore", IN_USE) from error
            time.sleep(0.1)  # nothing tells of the lock's end
    # A server that was started in some other way holds no lock, but answers: 2 is no answer.
    if ask("pg_isready", "--quiet").returncode != 2:
        where = os.environ.get("PGHOST", "the default socket")
        raise Refused(f"a server answers on {where}, or that cannot be told", "stop the database", IN_USE)
    return lock


def require_own(marker: Marker | None) -> None:
    """Raise Refused for a directory that nobody can have meant; it is made if it is not there."""
    if not DATA.is_absolute() or DATA.resolve() == Path("/"):
        raise Refused(
            f"PGDATA is '{os.environ.get('PGDATA', '')}'", "set it to the data directory, an absolute path", 2
        )
    DATA.mkdir(mode=0o700, exist_ok=True)
    if any(DATA.iterdir()) and not (DATA / "PG_VERSION").is_file() and not (marker and marker.stage in HALF):
        raise Refused(f"{DATA} is neither empty nor a data directory of PostgreSQL", "is PGDATA right?", 2)


def resumes(marker: Marker | None, words: Sequence[str]) -> bool:
    """Whether an unfinished restore to this target can be taken up, with its backup set still in the repository."""
    if not marker or marker.target != list(words) or not marker.options:
        return False
    if marker.stage == "restored":
        return recovering()
    # Killed while the services were stopping: for a time after the last commit only the running server could vouch.
    vouched = marker.stage == "planned" and "time" in words[:1] and not is_up()
    if marker.stage not in {"wiping", "wiped", "restoring"} and not vouched:
        return False
    return any(f"--set={backup.label}" in marker.options for backup in look_up()[0])


def recovering() -> bool:
    """Whether recovery of the restored files is still to come, or going on: at its end PostgreSQL removes this file."""
    return (DATA / "recovery.signal").exists()


def make_plan(words: Sequence[str]) -> list[str]:
    """Return pgbackrest restore's options for the target, and tell people."""
    plan = targets.make_plan(words)
    kept = unarchived(DATA)
    text = f"{len(kept)} WAL segments, in the data directory: kept aside when that is emptied"
    lines = [*plan.lines, *([("not archived", text)] if kept and not is_up() else [])]
    for title, text in lines:
        say(f"  {title:15} {text}")
    return plan.options


def plan(words: Sequence[str]) -> int:
    """Save a plan, or take an unfinished restore up; print what to do next, ``wipe`` or ``recover``."""
    marker = read_marker()
    if marker and marker.stage in HALF:
        os.close(take_lock())  # an interrupted restore, or one that is still going on?
    targets.parse(words)
    if marker and resumes(marker, words):
        say(f"restore.sh: taking up the restore of {marker.started}, which got to the stage '{marker.stage}'")
        replace(marker, workflow=True).save()
        sys.stdout.write("recover\n" if marker.stage == "restored" else "wipe\n")
        return 0
    if marker and marker.stage == "restored" and not recovering():
        say(f"restore.sh: the restore of {marker.started} got to its end, but for its full backup: this is a new one")
    # A data directory that must not be used stays so until it has been restored.
    stage = marker.stage if marker and marker.stage in HALF else "planned"
    new_marker(stage, words, make_plan(words), workflow=True).save()
    sys.stdout.write("wipe\n")
    return 0


def empty(lock: int) -> None:
    """Delete everything in the data directory, which stays itself: it may be a mount point."""
    kept = keep_unarchived(DATA)
    if kept:
        say(f"WARNING: restore.sh: WAL that was never archived is kept in {kept}")
        say("HINT: it may hold the last transactions before the restore; delete it when nobody misses any")
    for link, place in links(DATA):
        say(f"WARNING: restore.sh: {link} is a link: {place} itself was not emptied")
        say("HINT: empty it, too: pgBackRest restores only to empty directories")
    subprocess.run(("find", DATA, "-mindepth", "1", "-delete"), check=True, pass_fds=(lock,))


def require_none(words: Sequence[str]) -> None:
    """Raise Refused if there is more than the token."""
    if words:
        raise Refused(f"too many arguments: {' '.join(words)}", "this takes the token alone", code=2)


def wipe(words: Sequence[str]) -> int:
    """Empty the data directory."""
    require_none(words)
    marker = read_marker()
    require_own(marker)
    lock = take_lock()
    marker = (marker or new_marker("wiping")).at("wiping")
    empty(lock)
    marker.at("wiped")
    say(f"restore.sh: {DATA} is empty")
    return 0


def restore(words: Sequence[str]) -> int:
    """Restore into the empty data directory; return pgBackRest's exit code."""
    marker = read_marker()
    require_own(marker)
    expert = bool(words) and words[0].startswith("--")
    if not expert:
        targets.parse(words)
    lock = take_lock()
    if marker and marker.stage == "restored" and resumes(marker, words):
        say("restore.sh: restored already: only the start of the database and what follows is missing")
        return 0
    half = bool(marker and marker.stage in HALF)
    if any(DATA.iterdir()) and not half:
        hint = "empty it first: docker compose run --rm database_wipe TOKEN"
        raise Refused(f"{DATA} is not empty", hint, IN_USE)
    if expert:
        marker = new_marker("restoring", words, words)
    elif not (marker and resumes(replace(marker, stage="wiped") if marker.stage == "planned" else marker, words)):
        workflow = bool(marker and marker.workflow and marker.target == list(words))
        marker = new_marker("restoring", words, make_plan(words), workflow=workflow)
    marker = marker.at("restoring")
    if any(DATA.iterdir()):
        empty(lock)
    # As an argument the stanza gets into restore_command, too; from the environment it would not.
    stanza = [] if any(option.startswith("--stanza") for option in words) else [f"--stanza={STANZA}"]
    code = run(["pgbackrest", "restore", *stanza, *marker.options], lock)
    if code:
        say(
            f"ERROR: restore.sh: pgbackrest restore ended with exit code {code}\nHINT: run it again, to the same target"
        )
    elif marker.workflow:
        marker.at("restored")
    else:
        remove_marker()
    return code


def run(argv: Sequence[str], lock: int) -> int:
    """Run pgBackRest to its end, pass signals on, and return its exit code; it inherits the lock."""
    process = subprocess.Popen(argv, pass_fds=(lock,))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: process.send_signal(received))
    code = process.wait()
    return 128 - code if code < 0 else code


def fail(words: Sequence[str]) -> int:
    """Note that PostgreSQL refused to recover what was restored."""
    require_none(words)
    marker = read_marker()
    if not marker or marker.stage not in {"restored", "failed"}:
        raise Refused(f"no restore has got as far as recovery: {marker and marker.stage}", "see ./control.sh status", 2)
    marker.at("failed")
    return 0


def finish(words: Sequence[str]) -> int:
    """Note that all is done."""
    require_none(words)
    marker = read_marker()
    if marker and marker.stage != "restored":
        raise Refused(f"the restore is not complete: it got to the stage '{marker.stage}'", "run it again", 2)
    remove_marker()
    return 0


def main(action: str, *words: str) -> int:
    """Return the exit code."""
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    before = marker_bytes()
    try:
        return {"plan": plan, "wipe": wipe, "restore": restore, "fail": fail, "finish": finish}[action](words)
    except Refused as refused:
        message, hint, code = refused.message, refused.hint, refused.code
    except Problem as problem:
        message, hint, code = problem.seen, problem.hint, 4
    except (OSError, subprocess.CalledProcessError) as error:
        message, hint, code = str(error), "the same command, run again, goes on when that is mended", 1
    except Exception as error:  # an answer of a shape that nobody foresaw
        message, hint, code = f"{type(error).__name__}: {error}", "report this as a defect of restore.py", 4
    untouched = "Nothing was touched.\n" if marker_bytes() == before else ""
    say(f"ERROR: restore.sh: {message}\n{untouched}HINT: {hint}")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
