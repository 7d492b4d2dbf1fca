"""What an operator does with the deployed system, on a drill's stack: its variables, its schedule, ``control.sh``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from pytest_iopbackup.cluster import operate, pgbackrest, restore
from pytest_iopbackup.cluster import schedule as scheduled
from pytest_iopbackup.cluster.targets import By, Target
from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.history import History
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.proof.verdict import verdict
from pytest_iopbackup.proven import ProofFacts, RestoreFacts, Verdict
from pytest_iopbackup.record import OperationFacts, ScheduleFacts
from pytest_iopbackup.stack.base import Service, Stack


class Operations(ABC):
    """Verbs of a drill that only the deployed system has."""

    stack: Stack
    history: History
    limits: Limits
    variables: Mapping[str, str]
    progress: Callable[[int, int], None]

    @abstractmethod
    def prove(self, mark: str) -> ProofFacts:
        """Compare the database with a mark and with the ledger."""

    def restore_kept(self, mark: str) -> tuple[tuple[RestoreFacts, ...], ProofFacts]:
        """Restore each backup that the repository keeps, the newest first; each must hold exactly a mark's rows.

        The backup worker rests meanwhile, so that it expires none of them. Returns the restores and the last proof,
        or those until the first proof that did not pass. Raises UsageError for a backup older than the mark.
        """
        moment = self.history.mark(mark).facts.time
        self.stack.stop(Service.BACKUP)
        kept = pgbackrest.info(self.stack, self.limits).backups
        older = [backup.label for backup in kept if backup.stopped < moment]
        if older or not kept:
            raise UsageError(
                f"of the {len(kept)} backups kept, {len(older)} ended before mark {mark!r}: {', '.join(older)}",
                hint="let the worker take more backups after the mark, so that retention removes the older ones",
            )
        restores: list[RestoreFacts] = []
        for backup in reversed(kept):
            target = Target(by=By.IMMEDIATE, backup_set=backup.label)
            restores.append(
                restore.restore(self.stack, target, self.limits, files=self.progress, resume=[Service.CHECK])
            )
            proof = self.prove(mark)
            if verdict(proof)[0] is not Verdict.PASSED:
                break
        self.stack.start(Service.BACKUP)
        return tuple(restores), proof

    def configure(self, variables: Mapping[str, str]) -> None:
        """Set variables of the deployed system, as an operator does in its ``.env``."""
        self.variables = {**self.variables, **variables}
        self.stack.configure(variables)

    def schedule(self, full: int, diff: int) -> ScheduleFacts:
        """Wait until the backup worker has taken so many backups by itself; its order and retention must be right."""
        return scheduled.watch(
            self.stack, full=full, diff=diff, variables=self.variables, limits=self.limits, progress=self.progress
        )

    def control_restore(self, mark: str | None = None, by: str = "time") -> OperationFacts:
        """Restore with the operators' ``control.sh``: to a mark, or to the end of the archived WAL."""
        target = self.history.target(mark, by if mark else "default")
        facts = operate.restore(self.stack, target, self.limits)
        self.history.give_up(target, mark)
        return facts

    def refuse_wrong_tokens(self) -> OperationFacts:
        """Try every kind of wrong confirmation token; raises IopError when one is not blocked."""
        return operate.refuse_wrong_tokens(self.stack, self.limits)
