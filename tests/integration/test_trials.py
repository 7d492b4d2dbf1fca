"""A trial must be red for each way in which a fault, a signal or a healing is not what it is said to be."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import psycopg
import pytest

from pytest_iopbackup.cluster.checks import read_status
from pytest_iopbackup.detection import Answer, FaultFacts
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import HealError, ProofError, RecoveryError
from pytest_iopbackup.faults.archiving import ArchiveCommandFalse, ArchiveCommandTrue
from pytest_iopbackup.faults.base import PACE, Expected
from pytest_iopbackup.faults.corruption import FLIP
from pytest_iopbackup.faults.damage import ManifestCorrupt
from pytest_iopbackup.faults.repository import RepositoryMoved
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.trial import STAGES, Trial

pytestmark = [
    pytest.mark.integration,
    pytest.mark.iop_dataset(users=100),
    pytest.mark.iop_variables(**PACE),
]


def tried(drill: Drill, fault: type[ArchiveCommandFalse]) -> FaultFacts:
    facts = Trial(drill, fault()).run()
    assert drill.stack.host is not None
    return facts


def answers(facts: FaultFacts, answer: Answer) -> set[str]:
    return {reading.signal for reading in facts.readings if reading.answer is answer}


def test_a_fault_is_reported_healed_and_nothing_is_lost(iop_stack: Drill) -> None:
    facts = tried(iop_stack, ArchiveCommandFalse)
    assert (facts.verdict, facts.trouble) == (Verdict.PASSED, None)
    assert facts.evidence == "archive_command is '/bin/false'"
    assert answers(facts, Answer.ALARM) == {
        "configuration", "wal-archiving", "archiver", "check-worker", "pgbackrest-check", "backup"
    }  # fmt: skip
    assert answers(facts, Answer.SILENT) >= {
        "pgbackrest-info",
        "pgbackrest-verify",
        "restore",
        "backup-worker",
        "verify",
    }
    assert facts.lost is None
    assert iop_stack.unharmed
    assert facts.written > 0
    assert [restore.by for restore in facts.restores] == ["time", "default"]
    assert [proof.mark for proof in facts.proofs] == ["during-archive-command-false", "end-archive-command-false"]
    assert list(facts.laps) == list(STAGES)


def test_a_window_that_is_lost_is_named_and_ended_by_a_full_backup(iop_stack: Drill) -> None:
    facts = Trial(iop_stack, ArchiveCommandTrue()).run()
    assert (facts.verdict, facts.trouble) == (Verdict.PASSED, None)
    assert facts.lost is not None
    assert facts.lost.transactions.total >= facts.written > 0
    assert facts.restores[0].backup_set.startswith(facts.lost.backup)


class RestoreTells(RepositoryMoved):
    name = "restore-tells"
    expected = Expected(signal="restore", reason="missing stanza path|unable to (?:find|load)|is not valid", within=10)


def test_a_restore_is_a_signal_that_can_be_the_one_that_must_report_it(iop_stack: Drill) -> None:
    facts = Trial(iop_stack, RestoreTells()).run()
    assert (facts.verdict, facts.trouble) == (Verdict.PASSED, None)
    assert facts.detected is not None
    assert facts.detected.answer is Answer.ALARM
    assert sum(facts.laps.values()) > facts.laps["green"] > 0


class LabelCorrupt(ManifestCorrupt):
    """The byte is one of a label that the manifest refers to."""

    def damage(self, site: Site, path: Path) -> None:
        label = site.backups()[0].label.encode()
        site.script(FLIP, path, str(path.read_bytes().index(label, path.stat().st_size // 3) + 4))


@pytest.mark.iop_variables(**PACE, **ManifestCorrupt.variables)
def test_a_byte_of_a_label_in_a_manifest_is_reported_though_verify_may_die_of_it(iop_stack: Drill) -> None:
    facts = Trial(iop_stack, LabelCorrupt()).run()
    assert (facts.verdict, facts.trouble) == (Verdict.PASSED, None)
    assert facts.detected is not None
    assert facts.detected.signal == "verify"


class Unreported(ArchiveCommandFalse):
    expected = Expected(signal="space", reason="anything", within=10)


class OtherWords(ArchiveCommandFalse):
    expected = Expected(signal="wal-archiving", reason="no such words", within=10)


class NotSilent(ArchiveCommandFalse):
    silent = True


class NotThere(ArchiveCommandFalse):
    def inject(self, _: Site) -> None:
        pass

    def prove(self, _: Site) -> str:
        raise ProofError("archive_command is as it was")


class CommandFails(ArchiveCommandFalse):
    def inject(self, site: Site) -> None:
        site.run("ls", "/no/such/place")


class NotHealed(ArchiveCommandFalse):
    def heal(self, _: Site) -> None:
        pass


class CannotHeal(ArchiveCommandFalse):
    expected = Expected(signal="space", reason="anything", within=1)

    def heal(self, _: Site) -> None:
        raise OSError("no way")


class LosesWal(ArchiveCommandFalse):
    """It throws away what was to be archived."""

    def heal(self, site: Site) -> None:
        site.set("archive_command", "/bin/true")
        site.switch_wal()
        site.script(
            'while ls "$1"/*.ready >/dev/null 2>&1; do sleep 0.1; done',
            site.stack.places.data / "pg_wal/archive_status",
        )
        super().heal(site)


@pytest.mark.parametrize(
    ("fault", "outcome", "words"),
    [
        (Unreported, Verdict.FAILED, "space did not report it within 10 s (expected: anything); it said: silent"),
        (OtherWords, Verdict.FAILED, "it said: alarm: critical: [068] pgbackrest check: archive_command '/bin/false'"),
        (
            NotSilent,
            Verdict.FAILED,
            "check by itself saw nothing of this so far, but now it says: exit code 68",
        ),
        (NotThere, Verdict.UNKNOWN, "archive-command-false to be there, in vain: archive_command is as it was"),
        (NotHealed, Verdict.FAILED, "alarm after healing: the check worker was not green within 5 s: configuration"),
        (CommandFails, Verdict.UNKNOWN, "archive-command-false could not be done: ls /no/such/place: exit code 2"),
        (CannotHeal, Verdict.UNKNOWN, "space did not report it within 1 s (expected: anything)"),
        (CannotHeal, Verdict.UNKNOWN, "and archive-command-false could not be undone: no way"),
        (
            LosesWal,  # whoever is the first to see it: what may be on its way is no alarm of the checks at first
            Verdict.FAILED,
            "archiver: critical|wal-chain: critical|PostgreSQL refused: recovery ended before configured",
        ),
    ],
)
def test_whatever_is_not_as_it_should_be_is_red(
    iop_stack: Drill,
    monkeypatch: pytest.MonkeyPatch,
    fault: type[ArchiveCommandFalse],
    outcome: Verdict,
    words: str,
) -> None:
    monkeypatch.setattr("pytest_iopbackup.trial._HEALED", 5.0)
    if fault is NotThere:
        object.__setattr__(iop_stack.limits, "proof", 2)
    begun = time.monotonic()
    facts = tried(iop_stack, fault)
    took = time.monotonic() - begun
    assert facts.verdict is outcome
    assert facts.trouble is not None
    assert any(part in facts.trouble for part in words.split("|")), facts.trouble
    assert sum(facts.laps.values()) == pytest.approx(took, abs=0.2)
    assert list(facts.laps) == [stage for stage in STAGES if stage in facts.laps]


def spoil(drill: Drill) -> None:
    """Break something before the trial, and wait for the report: a trial takes one that is some seconds old."""
    Site(drill.stack, drill.limits).set("archive_timeout", "0")

    def reported() -> bool:
        status = read_status(drill.stack)
        return status is not None and status.status != "ok"

    wait_until(reported, limit=drill.limits.check, what="the check worker to report it")


def test_an_alarm_before_anything_is_broken_is_red(iop_stack: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_iopbackup.trial._HEALED", 3.0)
    spoil(iop_stack)
    facts = tried(iop_stack, ArchiveCommandFalse)
    assert facts.verdict is Verdict.FAILED
    assert facts.trouble is not None
    assert facts.trouble.startswith("alarm before anything was broken: ")
    assert "archive_timeout is 0" in facts.trouble
    assert facts.evidence is None


def test_an_alarm_on_a_stack_that_was_handed_on_names_who_had_it(
    iop_stack: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_iopbackup.trial._HEALED", 3.0)
    iop_stack.before = ("one", "another")
    spoil(iop_stack)
    facts = tried(iop_stack, ArchiveCommandFalse)
    assert facts.verdict is Verdict.FAILED
    assert facts.trouble is not None
    assert facts.trouble.startswith("alarm before anything was broken, after another on the same stack: ")
    assert not iop_stack.unharmed


def test_rows_that_do_not_come_back_are_red(iop_stack: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearse = Drill.rehearse

    def late(self: Drill, mark: str, by: str = "name", **more: object) -> object:
        if mark.startswith("end-"):
            self.stack.connect().execute("DELETE FROM identity.sessions")
            Site(self.stack, self.limits).await_archived(Site(self.stack, self.limits).switch_wal())
        return rehearse(self, mark, by, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Drill, "rehearse", late)
    facts = tried(iop_stack, ArchiveCommandFalse)
    assert facts.verdict is Verdict.FAILED
    assert facts.trouble is not None
    assert facts.trouble.startswith("after healing, a restore to end-archive-command-false: ")
    assert "acknowledged transactions lost" in facts.trouble


def test_a_fault_is_healed_when_the_test_goes_wrong(iop_stack: Drill) -> None:
    site = Site(iop_stack.stack, iop_stack.limits)
    before = site.setting("archive_command")

    def interrupted() -> None:
        with iop_stack.broken("archive-command-false") as evidence:
            assert evidence == "archive_command is '/bin/false'"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert site.setting("archive_command") == before


def test_both_errors_are_told(iop_stack: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iop_stack, "faults", {"archive-command-false": CannotHeal})

    def wrong() -> None:
        with iop_stack.broken("archive-command-false"):
            raise RuntimeError("the test's own")

    with pytest.raises(HealError, match=r"the test's own; and archive-command-false could not be undone: no way"):
        wrong()


def test_what_is_saved_is_put_back_as_it_was(iop_stack: Drill, tmp_path: Path) -> None:
    site = Site(iop_stack.stack, iop_stack.limits)
    path = iop_stack.stack.places.configuration / "pgbackrest.conf"
    state = 'stat -c "%a %U %G %Y" "$1"; sha256sum "$1"'
    before = site.script(state, path)
    site.edit(path, lambda text: text + "# it's \\ changed $(here) %s\n")
    site.keep(path)
    assert site.script('tail -1 "$1"', path) == "# it's \\ changed $(here) %s\n"
    site.put_back(path)
    site.put_back(path)
    assert site.script(state, path) == before


def test_a_segment_counts_as_archived_when_it_is_whole(iop_stack: Drill) -> None:
    site = Site(iop_stack.stack, iop_stack.limits)
    before = site.setting("archive_command")
    site.set("archive_command", "/bin/false")
    segment = site.switch_wal()
    half = site.archive() / segment[:16] / f"{segment}-{'0' * 40}.zst.pgbackrest.tmp"
    site.run("mkdir", "-p", str(half.parent))
    site.run("touch", str(half))
    healer = threading.Timer(1, lambda: site.set("archive_command", before))
    healer.start()
    try:
        found = site.await_archived(segment)
    finally:
        healer.join()
    assert re.fullmatch(rf"{segment}-[0-9a-f]{{40}}(?:\.[a-z0-9]+)?", found.name)
    assert found != half
    site.run("rm", str(half))


def test_a_restored_database_that_refuses_sessions_is_told_at_once(iop_stack: Drill) -> None:
    iop_stack.mark("before")
    site = Site(iop_stack.stack, iop_stack.limits)
    site.run("psql", "-qX", "--dbname=postgres", "--command=ALTER DATABASE iop ALLOW_CONNECTIONS false")
    with pytest.raises(psycopg.OperationalError):
        site.sql("SELECT")
    switch = "SELECT pg_walfile_name(pg_switch_wal())"
    segment = site.run("psql", "-qXAt", "--dbname=postgres", f"--command={switch}").stdout.strip()
    site.await_archived(segment)
    object.__setattr__(iop_stack.limits, "recovery", 15)
    begun = time.monotonic()
    with pytest.raises(RecoveryError) as caught:
        iop_stack.rehearse("before", "default")
    assert 'database "iop" is not currently accepting connections' in caught.value.message
    assert "waited" not in caught.value.message
    assert time.monotonic() - begun < 12
    site.run("psql", "-qX", "--dbname=postgres", "--command=ALTER DATABASE iop ALLOW_CONNECTIONS true")
