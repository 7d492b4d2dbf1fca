"""What a system promises to survive a crash, by the settings in force: PostgreSQL's, pgBackRest's, the workers'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.errors import IopError
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.stack.base import Stack

_DEMANDED: Mapping[str, frozenset[str]] = {
    "fsync": frozenset({"on"}),
    "full_page_writes": frozenset({"on"}),
    "synchronous_commit": frozenset({"on", "local", "remote_write", "remote_apply"}),
    "archive_mode": frozenset({"on", "always"}),
}
_TOLD = ("archive_timeout", "checkpoint_timeout", "wal_sync_method", "wal_segment_size")
_RPO = "IOP_RPO"
_BACKUP_EVERY, _EVERY_HOUR = "DATABASE_BACKUP_FREQUENCY", "3600"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """How old a commit may be that a crash loses. Seconds."""

    seconds: float
    """With archived WAL."""
    words: str
    """Where that comes from."""
    backup_every: float
    """Without archived WAL: how often the backup worker takes a backup."""
    settings: Mapping[str, str]
    """PostgreSQL's, which decide what an acknowledgement is worth, as ``SHOW`` has them."""


def read_promise(stack: Stack, variables: Mapping[str, str], limits: Limits) -> Promise:
    """Read what is promised; ``variables`` are those of the deployed system that differ from their defaults.

    A commit may be as old as ``archive_timeout`` when its segment ends, which then takes pgBackRest's
    ``archive-timeout`` at most to reach the repository; ``IOP_RPO`` replaces both, as in the system's own checks.
    Raises IopError where an acknowledged commit is worth nothing, whatever is archived, or where nothing is promised.
    """
    with stack.connect() as connection:
        names = (*_DEMANDED, *_TOLD)
        asked = connection.execute("SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name", [list(names)])
        settings = {str(name): str(value) for name, value in asked}
        row = connection.execute("SELECT setting::int FROM pg_settings WHERE name = 'archive_timeout'").fetchone()
    wrong = [f"{name} is {settings[name]}" for name, well in _DEMANDED.items() if settings[name] not in well]
    if wrong:
        wanted = ", ".join(f"{name} = on" for name in _DEMANDED)
        raise IopError(f"what is acknowledged need not survive a crash: {', '.join(wrong)}", hint=f"run with {wanted}")
    timeout = int(row[0]) if row else 0
    waits = pgbackrest.seconds_of(stack, "check", "archive-timeout", limits)
    seconds, words = timeout + waits, f"archive_timeout {timeout} s, archive-timeout {waits:g} s"
    if _RPO in variables:
        seconds, words = float(variables[_RPO]), f"{_RPO} {variables[_RPO]} s"
    elif not timeout:
        raise IopError("archive_timeout is 0: nothing is promised", hint="set archive_timeout, 60 seconds for example")
    every = float(variables.get(_BACKUP_EVERY, _EVERY_HOUR))
    return Promise(seconds=seconds, words=words, backup_every=every, settings=settings)


def draw_moments(seed: int, times: int, promised: float) -> tuple[float, ...]:
    """Draw when to crash: evenly up to one and a half of what is promised, in random order, one beyond it for certain.

    A crash that comes within what is promised could not lose more, whatever the archive does.
    """
    rng = Random(f"{seed}/crashes")  # noqa: S311 - reproducible, not secret
    width = 1.5 * promised / times
    drawn = [rng.uniform(width * part, width * (part + 1)) for part in range(times)]
    drawn[-1] = max(drawn[-1], rng.uniform(1.1, 1.5) * promised)
    rng.shuffle(drawn)
    return tuple(drawn)
