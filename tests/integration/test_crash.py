"""Crashes: green where the system keeps its promise, and red with the right words for each way in which it does not."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broken import INDEX, lose_entries
from pytest_iopbackup.cluster.lsn import parse_lsn, segment_name
from pytest_iopbackup.cluster.pgbackrest import await_archived, info
from pytest_iopbackup.crash import Crashes
from pytest_iopbackup.crashes import CrashFacts, CrashPlan
from pytest_iopbackup.dataset.ledger import Outcome
from pytest_iopbackup.dataset.prepared import transaction_id
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import HealError, IopError
from pytest_iopbackup.faults.reach import out_of_reach
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.stack import leftovers
from pytest_iopbackup.stack.base import Service

pytestmark = [
    pytest.mark.integration,
    pytest.mark.iop_dataset(users=100),
    pytest.mark.iop_variables(PGBACKREST_ARCHIVE_TIMEOUT=2),
]
durable = pytest.mark.iop_durable
SEGMENT = 16 << 20
PROMISED = 4.0
"""archive_timeout 2 s, archive-timeout 2 s."""


def crashed(drill: Drill, *moments: float) -> CrashFacts:
    return Crashes(drill, CrashPlan(clients=3, archive_timeout=2, moments=moments)).run()


def after_the_start(drill: Drill, act: Callable[[], None]) -> threading.Thread:
    """Do something as soon as the workload has ended its first transaction."""
    size = drill.ledger.size()

    def wait_and_act() -> None:
        wait_until(lambda: drill.ledger.size() > size, limit=60, what="the workload")
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def before_start(drill: Drill, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do something to a crashed server before it is started again."""
    start = drill.stack.start

    def act_and_start(service: Service) -> None:
        if service is Service.DATABASE:
            act()
        start(service)

    monkeypatch.setattr(drill.stack, "start", act_and_start)


def after_kill(drill: Drill, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do something as soon as the server is dead."""
    kill = drill.stack.kill

    def kill_and_act(service: Service) -> None:
        kill(service)
        act()

    monkeypatch.setattr(drill.stack, "kill", kill_and_act)


def archived(drill: Drill) -> set[Path]:
    archive = drill.stack.places.repository / "archive" / drill.stack.stanza
    return {path for path in archive.rglob("0*-*") if not path.name.endswith(".tmp")}


def remove_first_archived(drill: Drill, known: set[Path]) -> None:
    min(archived(drill) - known, key=lambda path: path.name).unlink()


@durable
@pytest.mark.iop_variables(PGBACKREST_ARCHIVE_TIMEOUT=8)
def test_no_more_is_lost_than_promised_and_nothing_with_the_disk(iop_stack: Drill) -> None:
    facts = crashed(iop_stack, 11.0, 1.0)
    assert (facts.verdict, facts.trouble) == (Verdict.PASSED, None)
    assert (facts.planned, facts.promised, facts.backup_every) == (2, 10.0, 3600)
    assert facts.promise == "archive_timeout 2 s, archive-timeout 8 s"
    assert {name: facts.settings[name] for name in ("fsync", "full_page_writes", "synchronous_commit")} == {
        "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"
    }  # fmt: skip
    assert facts.settings["archive_timeout"] == "2s"
    times = {entry.request_id: entry.time for entry in iop_stack.ledger.entries()}
    for crash, after in zip(facts.crashes, (11.0, 1.0), strict=True):
        assert after <= crash.after < after + 10
        assert 1 <= crash.in_flight <= 3
        assert 0 <= crash.recovered <= crash.indeterminate <= crash.in_flight
        assert 0 < crash.lost.total <= crash.acknowledged
        assert 0 < crash.oldest <= 10
        assert crash.hole is None
        oldest = times[crash.lost.examples[0][:36]]
        assert oldest is not None
        assert crash.moment - oldest == pytest.approx(timedelta(seconds=crash.oldest), abs=timedelta(milliseconds=2))
        assert crash.restore.by == "default"
        assert crash.physical is not None
        assert crash.physical.pages > 1000
        assert crash.restore.backup_set == info(iop_stack.stack, iop_stack.limits).backups[-1].label
        assert "redo done at" in crash.recovered_to
        assert 0 < crash.recovery_seconds < 60
    assert facts.crashes[0].lost.total < facts.crashes[0].acknowledged  # of eleven seconds some were archived
    assert not list(iop_stack.stack.directory.glob("data?*"))
    assert not list(iop_stack.stack.directory.parent.glob(f"{iop_stack.stack.directory.name}c*"))
    assert Site(iop_stack.stack, iop_stack.limits).setting("archive_timeout") == "1min"
    iop_stack.check()


@durable
def test_a_kill_takes_all_processes_of_the_server_and_no_other(iop_stack: Drill) -> None:
    """One that archives in the background, with another parent, is the server's, too."""
    stack = iop_stack.stack
    Site(stack, iop_stack.limits).set("archive_command", "setsid sh -c 'sleep 100 & sleep 100' >/dev/null 2>&1")
    Site(stack, iop_stack.limits).switch_wal()
    found = wait_until(
        lambda: [one for one in leftovers.find(stack.directory, "database") if one.command == "sleep 100"] or None,
        limit=30,
        what="what archives in the background",
    )
    server = leftovers.find(stack.directory, "database")
    assert len(server) > 6 + len(found)
    workers = set(leftovers.find(stack.directory)) - set(server)
    assert {stack.running(service) for service in Service} == {True}
    stack.kill(Service.DATABASE)
    assert leftovers.find(stack.directory, "database") == ()
    assert not stack.running(Service.DATABASE)
    assert stack.running(Service.BACKUP)
    assert stack.running(Service.CHECK)
    assert workers
    stack.kill(Service.DATABASE)  # well if none runs


@durable
def test_archiving_that_hangs_loses_more_than_promised(iop_stack: Drill) -> None:
    iop_stack.limits = replace(iop_stack.limits, archive=10)  # it never goes on
    site = Site(iop_stack.stack, iop_stack.limits)
    thread = after_the_start(iop_stack, lambda: site.set("archive_command", "sleep 1000"))
    facts = crashed(iop_stack, 8.0)
    thread.join()
    assert facts.verdict is Verdict.FAILED
    (crash,) = facts.crashes
    assert crash.oldest > PROMISED
    worst = re.search(
        r"^crash 1: (\d+) acknowledged transactions lost with the disk, the oldest (\d+\.\d) s old, more than the 4 s "
        r"promised \(archive_timeout 2 s, archive-timeout 2 s\): ([0-9a-f-]{36}) \(\w+, client \d\), \d+\.\d{3} s ",
        facts.trouble or "",
    )
    assert worst, facts.trouble
    assert int(worst[1]) == crash.lost.total
    assert float(worst[2]) == pytest.approx(crash.oldest, abs=0.06)
    assert worst[3] in {e.request_id for e in iop_stack.ledger.entries() if e.outcome is Outcome.ACKNOWLEDGED}


@durable
def test_a_repository_that_misses_a_segment_loses_more_than_promised(
    iop_stack: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: set[Path] = set()
    thread = after_the_start(iop_stack, lambda: known.update(archived(iop_stack)))
    after_kill(iop_stack, monkeypatch, lambda: remove_first_archived(iop_stack, known))
    facts = crashed(iop_stack, 6.5)
    thread.join()
    assert facts.verdict is Verdict.FAILED
    assert re.search(
        r"crash 1: \d+ acknowledged transactions lost .* more than the 4 s promised .*; WAL segment (\w{24}) is "
        r"missing from the repository; and crash 1: the archive has caught up, but WAL segment \1 is missing",
        facts.trouble or "",
    ), facts.trouble
    assert facts.crashes[0].hole is not None


@durable
@pytest.mark.iop_variables(PGBACKREST_ARCHIVE_TIMEOUT=40)
def test_a_hole_within_the_promise_is_no_less_a_failure(iop_stack: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    known: set[Path] = set()
    thread = after_the_start(iop_stack, lambda: known.update(archived(iop_stack)))
    after_kill(iop_stack, monkeypatch, lambda: remove_first_archived(iop_stack, known))
    facts = crashed(iop_stack, 6.0)
    thread.join()
    assert facts.crashes
    assert facts.crashes[0].oldest <= facts.promised
    assert facts.verdict is Verdict.FAILED
    assert re.fullmatch(
        r"(?s)crash 1: the archive has caught up, but WAL segment \w{24} is missing from the repository\nHINT: .*",
        facts.trouble or "",
    ), facts.trouble


@durable
def test_a_disk_that_has_lost_wal_is_told(iop_stack: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    def truncate() -> None:
        last = max(parse_lsn(one.lsn) for one in iop_stack.ledger.entries() if one.lsn)
        (iop_stack.stack.places.data / "pg_wal" / segment_name(1, last // SEGMENT, SEGMENT)).write_bytes(b"")

    before_start(iop_stack, monkeypatch, truncate)
    facts = crashed(iop_stack, 1.0)
    assert facts.verdict is Verdict.FAILED
    assert re.match(
        r"crash 1: started again on its disk: \d+ transactions lost: [0-9a-f-]{36} \(\w+, client \d\): not there",
        facts.trouble or "",
    ), facts.trouble


@durable
def test_what_was_prepared_at_the_crash_keeps_nobody_from_reading(
    iop_stack: Drill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its locks outlive the server, and come back with the archived WAL."""
    kill = iop_stack.stack.kill

    def prepare_and_kill(service: Service) -> None:
        site = Site(iop_stack.stack, iop_stack.limits)
        with iop_stack.stack.connect() as connection:
            connection.execute("BEGIN")
            connection.execute("LOCK TABLE identity.sessions IN ACCESS EXCLUSIVE MODE")
            connection.execute(b"PREPARE TRANSACTION " + f"'{transaction_id('lost')}'".encode())
        await_archived(iop_stack.stack, site.switch_wal(), iop_stack.limits)
        kill(service)

    monkeypatch.setattr(iop_stack.stack, "kill", prepare_and_kill)
    facts = crashed(iop_stack, 4.5)
    assert (facts.verdict, facts.trouble) == (Verdict.PASSED, None)
    assert "recovering prepared transaction" in iop_stack.stack.database_log()


@durable
def test_an_index_without_an_entry_is_told_of_what_was_restored(iop_stack: Drill) -> None:
    with iop_stack.connect() as connection:
        lose_entries(connection)
    facts = crashed(iop_stack, 1.0)
    assert facts.verdict is Verdict.FAILED
    assert f"restored without the primary's disk: index {INDEX}: expected " in (facts.trouble or "")


@durable
def test_transactions_that_no_client_asked_for_are_told(iop_stack: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    after_kill(iop_stack, monkeypatch, lambda: forget(iop_stack))
    facts = crashed(iop_stack, 4.5)
    assert facts.verdict is Verdict.FAILED
    assert "restored without the primary's disk" in (facts.trouble or "")
    assert re.search(r"\d+ transactions unexpected: .*there, though not in the ledger", facts.trouble or "")


def forget(drill: Drill) -> None:
    """Lose the first half of the ledger."""
    lines = drill.ledger.path.read_bytes().splitlines(keepends=True)
    drill.ledger.path.write_bytes(b"".join(lines[len(lines) // 2 :]))


@durable
def test_a_repository_on_the_primarys_own_disk_is_no_repository(iop_stack: Drill) -> None:
    places = iop_stack.stack.places
    iop_stack.stack.stop(Service.DATABASE)
    places.repository.rename(places.data / "repo")
    places.repository.symlink_to(places.data / "repo")
    Site(iop_stack.stack, iop_stack.limits).start()
    facts = crashed(iop_stack, 1.0)
    assert facts.verdict is Verdict.FAILED
    assert (facts.trouble or "").startswith("crash 1: restored without the primary's disk: ")
    assert facts.crashes == ()
    assert (places.data / "global" / "pg_control").exists()  # given back all the same


def test_a_server_that_does_not_write_through_is_refused_before_anything_dies(iop_stack: Drill) -> None:
    facts = crashed(iop_stack, 1.0)
    assert facts.verdict is Verdict.FAILED
    assert "what is acknowledged need not survive a crash: fsync is off\nHINT: " in (facts.trouble or "")
    assert iop_stack.stack.running(Service.DATABASE)
    assert iop_stack.ledger.entries() == ()


@durable
def test_a_crash_that_could_not_lose_more_than_promised_proves_nothing(iop_stack: Drill) -> None:
    facts = crashed(iop_stack, 0.5)
    assert len(facts.crashes) == 1
    assert facts.verdict is Verdict.UNKNOWN
    assert facts.trouble == "no crash came after more than 4 s of writing, so none could lose more than promised"


@durable
def test_a_server_that_was_dead_before_is_not_one_that_has_crashed_under_load(iop_stack: Drill) -> None:
    thread = after_the_start(iop_stack, lambda: iop_stack.stack.stop(Service.DATABASE, immediate=True))
    facts = crashed(iop_stack, 60.0)
    thread.join()
    assert facts.verdict is Verdict.UNKNOWN
    assert "no transaction was in flight when the server was killed" in (facts.trouble or "")


def test_a_data_directory_out_of_reach_comes_back_whatever_happens(iop_stack: Drill) -> None:
    data = iop_stack.stack.places.data
    iop_stack.stack.stop(Service.DATABASE)
    site = Site(iop_stack.stack, iop_stack.limits)
    before = {path.name for path in data.iterdir()}

    def fail_without_it() -> None:
        with out_of_reach(site):
            assert [path.name for path in data.iterdir()] == ["PG_VERSION"]
            raise IopError("in between")

    with pytest.raises(IopError, match="in between"):
        fail_without_it()
    assert {path.name for path in data.iterdir()} == before
    assert not data.with_name("data.out-of-reach").exists()
    with pytest.raises(HealError, match=r"cannot be moved back to .*data"), out_of_reach(site):
        (data / "base" / "in-the-way").mkdir(parents=True)
