"""What the backup worker's schedule is judged by: the order of what it took, and what retention left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import cast

import pytest

from pytest_iopbackup.cluster import pgbackrest, schedule
from pytest_iopbackup.errors import DeadlineError, IopError, UsageError
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.record import BackupFacts, ScheduleFacts
from pytest_iopbackup.stack.base import Stack
from scripted import BACKUP

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)
VARIABLES = {
    "DATABASE_BACKUP_FREQUENCY": "2",
    "IOP_FULL_BACKUP_AGE": "10",
    "PGBACKREST_REPO1_RETENTION_FULL": "2",
    "PGBACKREST_REPO1_RETENTION_DIFF": "2",
}


def backup(kind: str, second: int, on: str | None = None) -> BackupFacts:
    """A backup that took a second; ``F0`` is the full one begun in second 0, ``D3`` a differential one in second 3."""
    started = NOON + timedelta(seconds=second)
    return replace(
        BACKUP,
        label=f"{'F' if kind == 'full' else 'D'}{second}",
        type=kind,
        prior=on,
        started=started,
        stopped=started + timedelta(seconds=1),
    )


# A full one when the last is older than ten seconds, two kept of each kind.
F0, D3, D6, F12, D15, D18, F24 = (
    backup("full", 0), backup("diff", 3, "F0"), backup("diff", 6, "F0"), backup("full", 12),
    backup("diff", 15, "F12"), backup("diff", 18, "F12"), backup("full", 24),
)  # fmt: skip
RIGHT = [[F0], [F0, D3], [F0, D3, D6], [F0, D3, D6, F12], [F0, D6, F12, D15], [F0, F12, D15, D18], [F12, D15, D18, F24]]


def watched(
    monkeypatch: pytest.MonkeyPatch, looks: Sequence[Sequence[BackupFacts]], variables: Mapping[str, str] = VARIABLES
) -> ScheduleFacts:
    """Let the watch see one look after the other; the last one stays."""
    answers = list(looks)

    def info(_stack: Stack, _limits: Limits) -> pgbackrest.Info:
        seen = answers.pop(0) if len(answers) > 1 else answers[0]
        return pgbackrest.Info(backups=tuple(seen), archive_id="17-1", newest_wal=None)

    monkeypatch.setattr(pgbackrest, "info", info)
    monkeypatch.setattr(schedule, "_PAUSE", 0.001)
    return schedule.watch(
        cast("Stack", None), full=2, diff=4, variables=variables, limits=Limits(command=0), progress=lambda *_: None
    )


def test_a_right_schedule_is_told_with_what_was_taken_expired_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = watched(monkeypatch, RIGHT)
    assert [entry.label for entry in facts.taken] == ["D3", "D6", "F12", "D15", "D18", "F24"]
    assert facts.expired == ("F0", "D3", "D6")
    assert facts.kept == ("F12", "D15", "D18", "F24")


def at(backup: BackupFacts, second: int) -> BackupFacts:
    """The same backup, begun at another time."""
    started = NOON + timedelta(seconds=second)
    return replace(backup, started=started, stopped=started + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("backups", "words"),
    [
        ([replace(F0, type="diff")], ["the first backup is F0, not a full one"]),
        ([F0, D3, at(F12, 8)], ["F12 is full although F0 was only 7 s old"]),
        ([F0, F12, replace(D15, prior="F0")], ["D15 builds on F0, not on the last full backup F12"]),
        ([F0, at(D3, 30)], ["D3 is differential although F0 was 29 s old"]),
        ([F0, replace(D3, stopped=D6.stopped), D6], ["D6 began before D3 had ended"]),
        ([F0, D3, D6, F12, D15, D18, F24], []),
    ],
    ids=["first", "early", "on another", "late", "two at once", "right"],
)
def test_the_order_is_judged(backups: list[BackupFacts], words: list[str]) -> None:
    assert list(schedule.judge_order(backups, 10)) == words


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (["F36"], ["only 1 full backups are kept, fewer than 2"]),
        (["F0", "F12", "F24", "F36"], ["4 full backups are kept, more than 2"]),
        (["F0", "F36"], ["of the full backups not the newest are kept, but F0, F36"]),
        (["D18", "F24", "F36"], ["D18 is kept, but F12 is gone, which it builds on"]),
        (["F24", "F36"], []),
        (["F12", "D15", "D18", "F24", "F36"], ["3 full backups are kept, more than 2"]),
    ],
    ids=["too few", "too many", "not the newest", "without its full", "right", "one too many"],
)
def test_retention_is_judged(kept: list[str], words: list[str]) -> None:
    backups = [F0, D3, D6, F12, D15, D18, F24, backup("full", 36)]
    found = list(schedule.judge_retention(backups, kept, VARIABLES))
    assert found == words


def test_a_worker_that_takes_too_few_is_waited_for_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = {**VARIABLES, "DATABASE_BACKUP_FREQUENCY": "0.01", "IOP_FULL_BACKUP_AGE": "0.01"}
    with pytest.raises(DeadlineError, match="2 full and 4 differential backups by the worker"):
        watched(monkeypatch, RIGHT[:3], fast)


def test_one_that_never_expires_anything_is_waited_for_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = {**VARIABLES, "DATABASE_BACKUP_FREQUENCY": "0.01", "IOP_FULL_BACKUP_AGE": "0.01"}
    with pytest.raises(DeadlineError, match="one that retention removes"):
        watched(monkeypatch, [RIGHT[0], [F0, D3, D6, F12, D15, D18, F24]], fast)


def test_retention_is_given_a_moment_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    three = [F0, F12, D15, D18, F24]  # F0 is still there when F24 is listed
    assert watched(monkeypatch, [*RIGHT[:-2], three, RIGHT[-1]]).kept == ("F12", "D15", "D18", "F24")
    with pytest.raises(IopError, match="3 full backups are kept, more than 2"):
        watched(monkeypatch, [*RIGHT[:-2], three])


def test_a_schedule_that_is_not_set_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="DATABASE_BACKUP_FREQUENCY, IOP_FULL_BACKUP_AGE"):
        watched(monkeypatch, RIGHT, {})
