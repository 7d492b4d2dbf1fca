"""What a signal is: a question that an operator, or a program of theirs, may ask at any time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_iopbackup.cluster.checks import CheckStatus
from pytest_iopbackup.detection import Answer
from pytest_iopbackup.record import CheckFacts
from pytest_iopbackup.stack.base import CommandResult

CHECK_WORKER, BACKUP_WORKER = "check-worker", "backup-worker"
PGBACKREST_CHECK, PGBACKREST_VERIFY, PGBACKREST_INFO = "pgbackrest-check", "pgbackrest-verify", "pgbackrest-info"
BACKUP, RESTORE = "backup", "restore"
CHECKS = (
    "repository",
    "postgresql",
    "configuration",
    "wal-archiving",
    "archiver",
    "wal-chain",
    "backups",
    "verify",
    "space",
    "workers",
)
"""The check worker's named checks."""
SIGNALS = (
    *CHECKS, CHECK_WORKER, BACKUP_WORKER, PGBACKREST_CHECK, PGBACKREST_VERIFY, PGBACKREST_INFO, BACKUP, RESTORE
)  # fmt: skip
"""Every signal that there is."""


@dataclass(frozen=True, slots=True)
class Said:
    """A signal's answer to one question."""

    answer: Answer
    words: str = ""

    @property
    def alarm(self) -> bool:
        """Whether it leaves anybody alarmed: an answer that does not come does not."""
        return self.answer is Answer.ALARM


Signal = Callable[[], Said]
"""Asks it once. Raises DeadlineError where no answer comes."""


def of_check(check: CheckFacts) -> Said:
    """Return what a named check says; its warnings count, and so does that it does not know."""
    if check.status == "ok":
        return Said(Answer.SILENT, check.seen)
    code = f"[{check.code:03}] " if check.code else ""
    return Said(Answer.ALARM, f"{check.status}: {code}{check.seen}")


def of_checks(status: CheckStatus) -> dict[str, Said]:
    """Return what each named check says."""
    return {check.name: of_check(check) for check in status.checks}


def of_exit_code(result: CommandResult) -> Said:
    """Return what a program says that reports trouble by its exit code, as most schedulers take it."""
    if result.exit_code == 0:
        return Said(Answer.SILENT, last_words(result))
    return Said(Answer.ALARM, f"exit code {result.exit_code}: {last_words(result)}")


def last_words(result: CommandResult) -> str:
    """Return the first error that a program printed, or else its last line."""
    lines = [line.strip() for line in (result.stderr + "\n" + result.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line]
    return (errors or lines[-1:] or [""])[0].partition("ERROR: ")[2] or (lines[-1] if lines else "")
