"""Crashes of the primary under load: what is lost with its disk, and that nothing is lost on it.

Each crash kills all of the server's processes at once, at a random moment under load. Its disk then counts as lost: a
copy is restored from the repository alone, while the data directory is out of reach. The transactions that were
acknowledged but are not there are the loss, which may not be older than what archiving promises; and what is there must
be the commits of the archived WAL to its end, and no other. Then the server is started on its own disk, where every
acknowledged transaction has to be; and so it must be in the archive, as soon as that has caught up.

Before each crash all earlier WAL is archived, and ``archive_timeout`` is in force, as on a server that has been up for
a while. For on one that comes out of crash recovery it is not: the checkpointer asks before it sleeps whether recovery
is over, which it mostly is not yet, and then sleeps for ``checkpoint_timeout`` unless something wakes it
(``CheckpointerMain`` in PostgreSQL's checkpointer.c; seen with 15.18). A reload does.

What the kernel has taken from PostgreSQL outlives its processes, whether it was written through or not: this is the
crash of a server, not of its machine. What the latter takes is demanded in the settings, before anything dies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial

from pytest_iopbackup.blame import blame, words
from pytest_iopbackup.cluster import pgbackrest, restore
from pytest_iopbackup.cluster.promise import Promise, draw_moments, read_promise
from pytest_iopbackup.cluster.recovery import Recovery, await_recovery
from pytest_iopbackup.cluster.targets import Target
from pytest_iopbackup.cluster.wal import read_order
from pytest_iopbackup.crashes import Crash, CrashFacts, CrashPlan
from pytest_iopbackup.dataset.ledger import Entry, Outcome
from pytest_iopbackup.dataset.prepared import roll_back_left_over
from pytest_iopbackup.drill import Drill, Progress, nothing
from pytest_iopbackup.errors import GapError, IopError, ProofError
from pytest_iopbackup.faults.reach import out_of_reach
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.proof.cut import Cut, Everything, cut_at, owners
from pytest_iopbackup.proof.judge import judge
from pytest_iopbackup.proof.loss import Scene, loss, settle
from pytest_iopbackup.proof.prove import require_sound
from pytest_iopbackup.proof.requests import request_ids
from pytest_iopbackup.proven import PhysicalFacts, RestoreFacts, Verdict
from pytest_iopbackup.record import BackupFacts, WriteFacts
from pytest_iopbackup.stack.base import Restorable, Service

STAGES = ("writing", "restoring without the disk", "starting on the disk", "catching up")
_ENDLESS = 10_000_000
"""Transactions: more than there is time for."""
_READY = "SELECT name FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
_CRASHED = "database system was not properly shut down"
"""What PostgreSQL logs when it begins crash recovery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Restored:
    """What came back without the disk."""

    facts: RestoreFacts
    base: BackupFacts
    present: frozenset[str]
    hole: str | None
    physical: PhysicalFacts


class Crashes:
    """Crashes of one drill's primary."""

    def __init__(self, drill: Drill, plan: CrashPlan) -> None:
        self._drill, self._plan = drill, plan
        self._stack, self._limits = drill.stack, drill.limits
        self._site = Site(drill.stack, drill.limits)
        self._promise = Promise(seconds=0, words="not known", backup_every=0, settings={})
        self._seeded: frozenset[str] = frozenset()
        self._crashes: list[Crash] = []
        self._number = 0
        """The crash under way."""
        self._settled: dict[str, Entry] = {}
        """Transactions whose end no client saw, by request: how they have ended, as crash recovery left it."""

    def run(self) -> CrashFacts:
        """Crash, restore and start again, so many times.

        Whatever goes wrong is in the facts: ``failed`` where more was lost than promised, or anything with the disk, or
        where nothing could be restored without it; ``unknown`` where the server was not killed under load, or no crash
        could have lost more than was promised.
        """
        progress, self._drill.progress = self._drill.progress, nothing
        troubles: list[tuple[Verdict, str]] = []
        try:
            with self._archiving_every(self._plan.archive_timeout):
                moments = self._prepare()
                total = len(moments) * len(STAGES)
                for self._number, moment in enumerate(moments, 1):
                    self._crash(moment, partial(self._tell, progress, total))
        except Exception as error:  # whatever it is, it is a verdict with a reason
            troubles.append((blame(error), f"crash {self._number}: {words(error)}" if self._number else words(error)))
        finally:
            self._drill.progress = progress
        troubles = [*self._judge(complete=not troubles), *troubles]
        return CrashFacts(
            planned=len(self._plan.moments) or self._plan.times,
            settings=self._promise.settings,
            promised=self._promise.seconds,
            promise=self._promise.words,
            backup_every=self._promise.backup_every,
            crashes=tuple(self._crashes),
            verdict=Verdict.worst(found for found, _ in troubles) if troubles else Verdict.PASSED,
            trouble="; and ".join(text for _, text in troubles) or None,
        )

    def _tell(self, progress: Progress, total: int, stage: str) -> None:
        progress((self._number - 1) * len(STAGES) + STAGES.index(stage), total)

    def _judge(self, *, complete: bool) -> Iterator[tuple[Verdict, str]]:
        """Hold the losses against the promise; the worst is named."""
        promised = self._promise.seconds
        broken = [number for number, crash in enumerate(self._crashes) if crash.oldest > promised]
        if broken:
            number = max(broken, key=lambda number: self._crashes[number].oldest)
            worst = self._crashes[number]
            hole = f"; WAL segment {worst.hole} is missing from the repository" if worst.hole else ""
            yield (
                Verdict.FAILED,
                f"crash {number + 1}: {worst.lost.total} acknowledged transactions lost with the disk, the oldest "
                f"{worst.oldest:.1f} s old, more than the {promised:g} s promised ({self._promise.words}): "
                f"{worst.lost.examples[0]}{hole}",
            )
        elif complete and not any(crash.after > promised for crash in self._crashes):
            yield (
                Verdict.UNKNOWN,
                f"no crash came after more than {promised:g} s of writing, so none could lose more than promised",
            )

    @contextmanager
    def _archiving_every(self, seconds: int | None) -> Iterator[None]:
        """Set ``archive_timeout``, and reset it, if the server still runs then."""
        if seconds is None:
            yield
            return
        try:
            self._site.set("archive_timeout", str(seconds))
            yield
        finally:
            if self._stack.running(Service.DATABASE):
                self._site.set("archive_timeout", None)

    def _prepare(self) -> Sequence[float]:
        """Learn what is promised and what was there before the workload; return when to crash."""
        self._promise = read_promise(self._stack, self._drill.variables, self._limits)
        with self._stack.connect(autocommit=False) as connection:
            self._seeded = request_ids(connection) - {entry.request_id for entry in self._drill.history.entries()}
        return self._plan.moments or draw_moments(self._drill.seed, self._plan.times, self._promise.seconds)

    def _crash(self, after: float, reached: Callable[[str], None]) -> None:
        reached(STAGES[0])
        scene = self._kill_under_load(after)
        reached(STAGES[1])
        with out_of_reach(self._site):
            try:
                restored = self._restore_without_disk(scene)
            except IopError as error:
                error.message = f"restored without the primary's disk: {error.message}"
                raise
        reached(STAGES[2])
        recovery, recovered = self._start_on_disk(scene)
        lost, oldest = loss(scene, restored.present)
        self._crashes.append(
            Crash(
                moment=scene.moment,
                after=scene.after,
                acknowledged=len(scene.recent(Outcome.ACKNOWLEDGED)),
                in_flight=scene.in_flight,
                indeterminate=len(scene.recent(Outcome.INDETERMINATE)),
                recovered=recovered,
                lost=lost,
                oldest=oldest,
                hole=restored.hole,
                backup_age=(scene.moment - restored.base.stopped).total_seconds(),
                restore=restored.facts,
                physical=restored.physical,
                recovery_seconds=recovery.replay_seconds + recovery.ready_seconds,
                recovered_to=recovery.reached,
            )
        )
        self._require_archived(scene)

    def _kill_under_load(self, after: float) -> Scene:
        """Let the clients write, and kill the server so many seconds after their first commit. Raises ProofError."""
        since = self._archive_all()
        before, size = len(self._drill.history.entries()), self._drill.ledger.size()
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(self._drill.write, _ENDLESS, self._plan.clients)
            try:
                first = self._await_entry(writing, size)
                wait([writing], timeout=after)
                killed_under_way = not writing.done()
            finally:  # whatever happened: the clients end with the server only
                self._stack.kill(Service.DATABASE)
                moment, at = datetime.now(timezone.utc), time.monotonic()
            writing.result()
        scene = Scene(since=since, moment=moment, after=at - first, entries=self._entries(), before=before)
        if not killed_under_way or not scene.in_flight:
            raise ProofError(
                "no transaction was in flight when the server was killed",
                hint="see PostgreSQL's log: did the server end before? or give the step more clients",
            )
        return scene

    def _entries(self) -> tuple[Entry, ...]:
        return tuple(self._settled.get(entry.request_id, entry) for entry in self._drill.history.entries())

    def _archive_all(self) -> str:
        """End the WAL segment and wait for it in the repository; return the LSN from which on nothing is archived.

        The checkpointer is woken, see above.
        """
        self._site.sql("SELECT pg_reload_conf()")
        pgbackrest.await_archived(self._stack, self._site.switch_wal(), self._limits)
        # Segments are pushed side by side: the last one may be there before the one before it.
        wait_until(lambda: not self._site.sql(_READY), limit=self._limits.archive, what="all WAL to be archived")
        return str(self._site.sql("SELECT pg_current_wal_insert_lsn()")[0][0])

    def _await_entry(self, writing: Future[WriteFacts], size: int) -> float:
        """Wait until a transaction has ended; return the time of a clock that only goes forward."""
        ended = "the workload's first transaction to end"
        wait_until(lambda: writing.done() or self._drill.ledger.size() > size, limit=self._limits.start, what=ended)
        return time.monotonic()

    def _restore_without_disk(self, scene: Scene) -> _Restored:
        """Restore the repository to its end, into a copy: it must hold the archived WAL's commits, and no other."""
        copy = self._stack.copy()
        try:
            facts = restore.restore(copy, Target(), self._limits, resume=())
            backups = pgbackrest.info(copy, self._limits).backups
            base = next(backup for backup in backups if backup.label == facts.backup_set)
            order = read_order(copy, scene.since, self._limits, to_hole=True)
            cut = cut_at(order, Target(), base, owners(order, scene.entries))
            assert cut is not None  # the end is always reached
            present = self._require(copy, scene, cut)
            with copy.connect() as connection:
                physical = require_sound(connection, self._limits.examine)
        finally:
            copy.close()
        return _Restored(facts=facts, base=base, present=present, hole=order.hole, physical=physical)

    def _start_on_disk(self, scene: Scene) -> tuple[Recovery, int]:
        """Start the server on its own disk; nothing may be lost. Return how many indeterminate ones are there, too."""
        offset = self._stack.database_log_size()
        recovery = await_recovery(self._stack, offset, self._limits, lambda _: None)
        if _CRASHED not in self._stack.database_log(offset):
            raise ProofError(
                f"PostgreSQL's log does not say {_CRASHED!r}", hint="was it shut down before it was killed?"
            )
        try:
            present = self._require(self._stack, scene, Everything())
        except IopError as error:
            error.message = f"started again on its disk: {error.message}"
            raise
        with self._stack.connect() as connection:
            settled = settle(scene, present, connection)
        self._settled.update(settled)
        return recovery, sum(entry.outcome is Outcome.ACKNOWLEDGED for entry in settled.values())

    def _require(self, where: Restorable, scene: Scene, cut: Cut) -> frozenset[str]:
        """Return which requests are there; raises IopError where one is missing that a cut leaves, or is too many.

        What was prepared at the crash keeps its locks on the tables that are read, so it is rolled back first.
        """
        with where.connect() as connection:
            roll_back_left_over(connection)
            present = request_ids(connection)
            found = judge(scene.entries, cut, connection, seeded=self._seeded)
        for way, differing in (("lost", found.lost), ("unexpected", found.unexpected)):
            if differing.total:
                raise IopError(f"{differing.total} transactions {way}: {'; '.join(differing.examples[:3])}")
        return present

    def _require_archived(self, scene: Scene) -> None:
        """Demand that the archive has caught up: every acknowledged commit is in its WAL, without a hole."""
        self._archive_all()
        try:
            order = read_order(self._stack, scene.since, self._limits)
        except GapError as error:
            raise IopError(f"the archive has caught up, but {error.message}", hint=error.hint) from error
        archived = {(ending.xid, ending.time) for ending in order.endings if ending.committed}
        missing = [
            entry.request_id
            for entry in scene.recent(Outcome.ACKNOWLEDGED)
            if entry.xid is None or (entry.xid % 2**32, entry.time) not in archived
        ]
        if missing:
            raise IopError(
                f"{len(missing)} acknowledged transactions are not in the archived WAL after crash recovery: "
                f"{', '.join(missing[:3])}"
            )
