"""A fault's trial, from green to green: every signal is asked, and nothing may be lost once it is healed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pytest_iopbackup.blame import blame, words
from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.detection import Answer, FaultFacts, Lost, Reading
from pytest_iopbackup.drill import Drill, nothing
from pytest_iopbackup.errors import IopError
from pytest_iopbackup.faults.base import Fault, injected
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.proof.verdict import describe, verdict
from pytest_iopbackup.proven import Differing, ProofFacts, RestoreFacts, Verdict
from pytest_iopbackup.signals.base import CHECK_WORKER, PGBACKREST_CHECK, RESTORE, Said, Signal
from pytest_iopbackup.signals.watch import UNHURRIED, Watch
from pytest_iopbackup.stack.base import Service

STAGES = ("green", "inject", "detect", "ask", "heal", "write", "restore", "green again")
_AFTER = "after healing"
_TRANSACTIONS = 20
"""Before the fault, while it lasts, and after it."""
_HEALED = 30.0
"""Seconds after healing until every signal has to be green."""
_RECENT = 3.0
"""Seconds since the first green report began, at most: the one before may have seen the stack come up, or be healed."""
_REPORT = 8.0
"""Seconds for the check worker to end a cycle that it has begun after the fault was there, on a busy machine."""
_HEALTH = 8.0
"""Seconds for a container's health check, every 4 s, to follow what its worker has recorded."""
_REHEARSAL = 8.0
"""Seconds for a restore while the fault lasts, and for its recovery."""


class Trial:
    """One fault on one stack."""

    def __init__(self, drill: Drill, fault: Fault) -> None:
        self._drill, self._fault = drill, fault
        self._progress = drill.progress
        self._scale = drill.limits.scale
        self._watch = Watch(drill.stack, self._scale, self._rehearse)
        self._clock = time.monotonic()
        self._laps: dict[str, float] = {}
        self._stage = STAGES[0]
        """The one under way."""
        self._evidence: str | None = None
        self._readings: tuple[Reading, ...] = ()
        self._written = 0
        self._lost: Lost | None = None
        self._restores: list[tuple[RestoreFacts, ProofFacts]] = []
        self._older: tuple[str, ...] = ()

    def run(self) -> FaultFacts:
        """Break a green stack, see it reported by the named signal, ask all others, heal, and restore twice.

        Whatever goes wrong is in the facts: ``failed`` where the system under test is at fault, by a signal that should
        have reported it, an alarm before or after, or rows that are not restored; ``unknown`` where it was not broken
        after all, could not be healed, or could not be judged.
        """
        outcome, trouble = Verdict.PASSED, None
        self._drill.progress = nothing  # the verbs' own would only confuse
        try:
            self._begin()
            with injected(self._fault, Site(self._drill.stack, self._drill.limits)) as evidence:
                self._evidence = evidence
                self._done("inject")
                try:
                    self._observe()
                except BaseException:
                    self._lap(self._stage)
                    self._stage = "heal"
                    raise
                finally:
                    self._readings = tuple(self._watch.readings.values())
            self._recover()
            self._drill.unharmed = True
        except Exception as error:  # whatever it is, it is a verdict with a reason
            outcome, trouble = blame(error), words(error)
            self._lap(self._stage)
        finally:
            self._drill.progress = self._progress
        return self._facts(outcome, trouble)

    def _begin(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            before = self._drill.before
            when = f"before anything was broken{f', after {before[-1]} on the same stack' if before else ''}"
            control = pool.submit(self._demand_green, when, recent=_RECENT * self._scale)
            self._write("before", settled=True)
            self._older = self._list()
            control.result()
        if self._fault.expected.signal == RESTORE:  # it is costly, so only where all depends on it
            self._demand_silence(when, self._watch.restore(), 0)
        self._done("green")
        self._watch.begin()

    def _observe(self) -> None:
        """Write on where that goes, wait for the named signal, and ask all others.

        A restore and a backup take longest, so they begin at once; where that would hide the fault, all but the restore
        waits for the named signal.
        """
        fault, watch = self._fault, self._watch
        expected = fault.expected
        early = {**watch.restore(), **({} if fault.fleeting else watch.backup())}
        early.pop(expected.signal, None)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(watch.ask, early)
            if fault.writes and not fault.fleeting:
                self._written = self._write("during")
            watch.await_alarm(expected.signal, expected.reason, expected.within * self._scale)
            self._done("detect")
            if fault.writes and fault.fleeting:
                self._written = self._write("during")
            watch.ask({name: signal for name, signal in watch.asked().items() if name not in early})
            asked.result()
        if expected.signal != CHECK_WORKER:  # there, that it reports nothing may be the fault
            watch.await_report(_REPORT * self._scale)
        watch.await_health(_HEALTH * self._scale)
        self._done("ask")
        alone = watch.readings[PGBACKREST_CHECK]
        if fault.silent and alone.answer is not Answer.SILENT:
            raise IopError(f"pgbackrest check by itself saw nothing of this so far, but now it says: {alone.said}")

    def _rehearse(self) -> Said:
        """Ask the signal that is a restore: whether one to the mark before the fault gives exactly its rows."""
        most = _REHEARSAL * self._scale
        limits = replace(self._drill.limits, command=most, restore=most, recovery=most)
        try:
            _, proof = self._drill.rehearse(self._name("before"), limits=limits, physical=False)
        except IopError as error:
            return Said(Answer.ALARM, error.message)
        outcome, reason = verdict(proof)
        if outcome is Verdict.PASSED:
            return Said(Answer.SILENT, "exactly as marked")
        return Said(Answer.ALARM, reason or outcome.value)

    def _recover(self) -> None:
        """Demand green signals again, a new backup among them, and restore from one that is older than the fault.

        So both restores go through the WAL of all the time that it lasted, and need not wait for the new backup; nor
        for the signals, as what is healed can be restored from at once.
        """
        if self._fault.loses_window:
            self._renew()
        self._done("heal")
        with ThreadPoolExecutor(2) as pool:
            backup = pool.submit(self._demand_silence, _AFTER, self._watch.backup(UNHURRIED), _HEALED * self._scale)
            green = pool.submit(self._demand_green, _AFTER, patience=_HEALED * self._scale)
            base = self._base()
            try:
                self._restore_both(self._write_on(), base)
            except IopError:
                green.result()  # an alarm says more
                raise
            green.result()
            backup.result()
        self._done("green again")

    def _base(self) -> str:
        """Return the newest backup older than the fault, or else the newest there is."""
        listed = self._list()
        return ([label for label in listed if label in self._older] or listed)[-1]

    def _list(self) -> tuple[str, ...]:
        return tuple(backup.label for backup in pgbackrest.info(self._drill.stack, self._drill.limits).backups)

    def _renew(self) -> None:
        """Take a full backup, and let those before it go: no restore from them gets past the gap."""
        drill = self._drill
        old = [backup for backup in pgbackrest.info(drill.stack, drill.limits).backups if backup.type == "full"]
        renewed = drill.backup("full")
        for backup in old:
            expire = ["pgbackrest", "expire", f"--set={backup.label}"]
            drill.stack.host(Service.BACKUP).run(expire, timeout=drill.limits.command)
        gone = drill.committed_between(self._name("before"), renewed)
        self._lost = Lost(transactions=Differing(total=len(gone), examples=gone), backup=renewed.label)

    def _write_on(self) -> str:
        """Write, and mark the end; return the mark that a restore to a point in time goes to."""
        point = "during"
        if not self._written or self._lost:
            point = "healed"
            self._write(point)
        self._write("end", settled=True)
        self._done("write")
        return self._name(point)

    def _write(self, moment: str, *, settled: bool = False) -> int:
        """Write, and mark that moment; return how many transactions were acknowledged."""
        acknowledged = self._drill.write(_TRANSACTIONS, clients=2).acknowledged
        self._drill.mark(self._name(moment), settled=settled)
        return acknowledged

    def _restore_both(self, point: str, base: str) -> None:
        """Restore to a point in time and to the end, side by side; both must give exactly their mark's rows.

        The physical proof is made of the first alone: it replays less WAL, so it has the time.
        """
        with ThreadPoolExecutor(2) as pool:
            restores = (
                pool.submit(self._drill.rehearse, point, "time"),
                pool.submit(self._drill.rehearse, self._name("end"), "default", base=base, physical=False),
            )
        self._restores = [restored.result() for restored in restores]
        for _, proof in self._restores:
            outcome, reason = verdict(proof)
            if outcome is not Verdict.PASSED:
                raise IopError(f"after healing, a restore to {proof.mark}: {reason}\n{describe(proof)}")
        self._done("restore")

    def _demand_green(self, when: str, *, recent: float = 0, patience: float = 0) -> None:
        """Raise IopError where a signal raises an alarm; ``patience`` is for those that lag behind a healed fault."""
        control = dict(self._watch.control(UNHURRIED))
        del control[CHECK_WORKER]  # its health follows its report, and so is asked after that
        lag = _HEALTH * self._scale if self._drill.stack.kind == "compose" else 0  # elsewhere, it is asked at once
        with ThreadPoolExecutor(1) as pool:
            others = pool.submit(self._demand_silence, when, control, patience)
            try:
                self._watch.await_green(_HEALED * self._scale, recent=recent)
                self._watch.await_healthy(max(patience, lag))
            except IopError as error:
                raise IopError(f"alarm {when}: {error.message}") from None
            others.result()

    def _demand_silence(self, when: str, signals: Mapping[str, Signal], patience: float) -> None:
        try:
            self._watch.require_silence(signals, patience)
        except IopError as error:
            raise IopError(f"alarm {when}: {error.message}") from None

    def _name(self, moment: str) -> str:
        return f"{moment}-{self._fault.name}"

    def _done(self, stage: str) -> None:
        self._lap(stage)
        self._stage = next(iter(STAGES[STAGES.index(stage) + 1 :]), stage)
        self._progress(len(self._laps), len(STAGES))

    def _lap(self, stage: str) -> None:
        """Note the seconds since the last note as the stage's, whether it came to its end or not."""
        lap = time.monotonic() - self._clock - sum(self._laps.values())
        self._laps[stage] = self._laps.get(stage, 0) + lap

    def _facts(self, outcome: Verdict, trouble: str | None) -> FaultFacts:
        fault = self._fault
        return FaultFacts(
            name=fault.name,
            title=fault.title,
            tags=fault.tags,
            signal=fault.expected.signal,
            reason=fault.expected.reason,
            within=fault.expected.within,
            silent=fault.silent,
            evidence=self._evidence,
            readings=self._readings,
            written=self._written,
            lost=self._lost,
            restores=tuple(facts for facts, _ in self._restores),
            proofs=tuple(proof for _, proof in self._restores),
            laps=self._laps,
            verdict=outcome,
            trouble=trouble,
        )
