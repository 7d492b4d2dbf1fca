"""A drill without a server: every verb answers from a script. And facts as a real run would find them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar, cast

from pytest_iopbackup.crashes import Crash, CrashFacts
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.proven import (
    Differing,
    LedgerJudgement,
    PhysicalFacts,
    ProofFacts,
    RestoreFacts,
    TableComparison,
    Verdict,
)
from pytest_iopbackup.record import (
    BackupFacts,
    CheckFacts,
    MarkFacts,
    MistakeFacts,
    OperationFacts,
    ScheduleFacts,
    WriteFacts,
)
from pytest_iopbackup.stack.base import Stack

T = TypeVar("T")

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)

BACKUP = BackupFacts(
    label="20260115-120000F",
    type="full",
    prior=None,
    database_size=36_700_000,
    repository_size=5_900_000,
    started=NOON,
    stopped=NOON.replace(second=7),
    start_lsn="0/3000028",
    stop_lsn="0/3000100",
    start_wal="000000010000000000000003",
    stop_wal="000000010000000000000003",
)
WRITE = WriteFacts(clients=4, acknowledged=190, rolled_back=10, indeterminate=0)
MARK = MarkFacts(
    name="here", lsn="0/5A00110", xid=749, time=NOON, timeline=1, tables=1, rows=32, writers_waited=0.004
)  # fmt: skip
MISTAKE = MistakeFacts(sql="DELETE FROM identity.membership", rows=32)
RESTORE = RestoreFacts(
    by="time",
    target="2026-01-15 12:00:00+00",
    backup_set=BACKUP.label,
    target_timeline=1,
    reached="recovery stopping before commit of transaction 749",
    last_transaction=NOON,
    timeline=2,
    stop_seconds=0.5,
    restore_seconds=1.25,
    replay_seconds=0.5,
    ready_seconds=0.25,
)
TABLE = TableComparison(
    table="identity.membership", expected_rows=32, actual_rows=32, expected_digest="a" * 64, actual_digest="a" * 64
)
PROOF = ProofFacts(
    mark="here",
    algorithm="sum of SHA-256",
    tables=(TABLE,),
    sequences=4,
    objects=284,
    findings=(),
    ledger=LedgerJudgement(acknowledged=190, rows=310),
)
PHYSICAL = PhysicalFacts(
    databases=3,
    files=1336,
    pages=4622,
    tables=353,
    indexes=531,
    constraints=129,
    page_seconds=0.07,
    structure_seconds=0.25,
    constraint_seconds=0.125,
)
NOTHING_COMPARED = replace(PROOF, tables=())
DIFFERENT = replace(
    PROOF,
    tables=(
        replace(
            TABLE, actual_rows=31, actual_digest="b" * 64, missing=Differing(total=1, examples=("user_id=7|org_id=3",))
        ),
    ),
)
CRASH = Crash(
    moment=NOON,
    after=5.25,
    acknowledged=1100,
    in_flight=4,
    indeterminate=2,
    recovered=1,
    lost=Differing(total=300, examples=("11111111-2222-4333-8444-555555555555 (login, client 2), 1.500 s before",)),
    oldest=1.5,
    hole=None,
    physical=PHYSICAL,
    backup_age=61,
    restore=RESTORE,
    recovery_seconds=0.25,
    recovered_to="end of WAL, redo done at 0/7000028",
)
CRASHES = CrashFacts(
    planned=2,
    settings={"fsync": "on"},
    promised=5,
    promise="archive_timeout 2 s, archive-timeout 3 s",
    backup_every=3600,
    crashes=(CRASH, replace(CRASH, lost=Differing(), oldest=0.0)),
    verdict=Verdict.PASSED,
    trouble=None,
)
SCHEDULE = ScheduleFacts(taken=(BACKUP,), expired=("20260114-120000F",), kept=(BACKUP.label,))
OPERATION = OperationFacts(command="restore TOKEN", attempts=1, said="reached: the end of the archived WAL")
REFUSAL = OperationFacts(command="restore WRONG", attempts=27, said="27 attempts blocked, nothing touched")
CHECKS = (CheckFacts(name="repository", status="ok", seen="1 full backup", hint=""),)

Script = Mapping[str, object]
"""By verb: the facts to give, or the exception to raise; a verb that is not there gives the facts above."""


class ScriptedDrill(Drill):
    """Answers every verb from a script, and notes what was asked of it."""

    def __init__(self, evidence: Path, script: Script, *, seed: int = 42, limits: Limits | None = None) -> None:
        super().__init__(cast("Stack", None), evidence, seed=seed, limits=limits or Limits())
        self.asked: list[tuple[object, ...]] = []
        self._script = script

    @property
    def verbs(self) -> list[object]:
        """The verbs in the order in which they were asked for."""
        return [verb for verb, *_ in self.asked]

    def backup(self, kind: str = "auto", name: str | None = None) -> BackupFacts:
        return self._answer(BACKUP, "backup", kind, name)

    def write(self, transactions: int, clients: int = 4, *, marks: int = 0, prefix: str = "load") -> WriteFacts:
        return self._answer(WRITE, "write", transactions, clients, *((marks, prefix) if marks else ()))

    def mark(self, name: str, **_: object) -> MarkFacts:
        return self._answer(MARK, "mark", name)

    def mistake(self, statement: str) -> MistakeFacts:
        return self._answer(MISTAKE, "mistake", statement)

    def lose(self) -> None:
        return self._answer(None, "lose")

    def restore(
        self, mark: str | None = None, by: str = "default", *, value: str | None = None, backup: str | None = None
    ) -> RestoreFacts:
        return self._answer(RESTORE, "restore", mark, by, value, backup)

    def prove(self, mark: str, *_: object, **__: object) -> ProofFacts:
        return self._answer(PROOF, "expect", mark)

    def restore_kept(self, mark: str) -> tuple[tuple[RestoreFacts, ...], ProofFacts]:
        return self._answer(((RESTORE, RESTORE), PROOF), "restore-kept", mark)

    def schedule(self, full: int, diff: int) -> ScheduleFacts:
        return self._answer(SCHEDULE, "schedule", full, diff)

    def configure(self, variables: Mapping[str, str]) -> None:
        return self._answer(None, "configure", dict(variables))

    def control_restore(self, mark: str | None = None, by: str = "time") -> OperationFacts:
        return self._answer(OPERATION, "control", mark, by)

    def refuse_wrong_tokens(self) -> OperationFacts:
        return self._answer(REFUSAL, "refuse")

    def check(self) -> tuple[CheckFacts, ...]:
        return self._answer(CHECKS, "check")

    def logs(self) -> Mapping[str, str]:
        return {"postgresql.log": "LOG:  ready"}

    def _answer(self, facts: T, verb: str, *arguments: object) -> T:
        self.asked.append((verb, *arguments))
        answer = self._script.get(verb, facts)
        if isinstance(answer, BaseException):
            raise answer
        return cast("T", answer)
