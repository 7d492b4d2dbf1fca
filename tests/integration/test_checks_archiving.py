"""The checks of archiving: each turns red for real causes, and green when they are gone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from damage import Damage, mode, setting, stopped, write_wal
from pgbackrest_system import System, all_but, statuses, system, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stack() -> Iterator[System]:
    with system() as new:
        new.must(new.scripts / "backup.sh")
        wait_for(lambda: new.check()[0] == 0, seconds=30)
        yield new


@contextmanager
def archiver_stopped(stack: System) -> Iterator[Mapping[str, str]]:
    pid = int(stack.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'"))
    with stopped(pid):
        stack.sql("SELECT pg_switch_wal() FROM pg_logical_emit_message(true, 'test', 'something')")
        wait_for(lambda: stack.sql("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name ~ 'ready'") != "0")
        time.sleep(1.1)  # the segment has to have waited for longer than IOP_READY_AGE
        yield {"IOP_READY_AGE": "1"}


@contextmanager
def command_hangs(stack: System) -> Iterator[Mapping[str, str]]:
    with setting("archive_command", "sleep 7 && pgbackrest --stanza=iop archive-push %p", IOP_READY_AGE="1")(stack):
        yield {"IOP_READY_AGE": "1"}


@contextmanager
def many_wait(stack: System) -> Iterator[Mapping[str, str]]:
    with setting("archive_command", "test -e /nope && pgbackrest --stanza=iop archive-push %p")(stack):
        for _ in range(3):
            stack.sql("SELECT pg_switch_wal() FROM pg_logical_emit_message(true, 'test', 'something')")
        yield {"IOP_READY_LIMIT": "1"}


@contextmanager
def segments_closed(stack: System) -> Iterator[Mapping[str, str]]:
    """Take the right to write from the directories that WAL goes to."""
    (archive,) = (stack.repository / "archive" / "iop").glob("*-1")
    with mode(archive, 0o550), mode(next(archive.glob("0*")), 0o550):
        yield {}


FAULTS: list[tuple[str, Damage, str]] = [
    ("archiver-stopped", archiver_stopped, "none was archived meanwhile"),
    ("command-hangs", command_hangs, "none was archived meanwhile"),
    ("command-fails", setting("archive_command", "false # pgbackrest archive-push"), "failed, and no success since"),
    ("many-wait", many_wait, "WAL segments wait for the archive"),
    ("program-missing", setting("archive_command", "/nope/pgbackrest archive-push %p", IOP_READY_AGE="1"), ""),
    ("repository-closed", segments_closed, "failed, and no success since"),
]


@pytest.mark.parametrize(("fault", "words"), [pytest.param(*row[1:], id=row[0]) for row in FAULTS])
def test_a_fault_turns_the_archiver_red_and_healing_turns_all_green(
    stack: System, *, fault: Damage, words: str
) -> None:
    with fault(stack) as environment:
        checks = stack.check(PGBACKREST_ARCHIVE_TIMEOUT="3", **environment)[1]
        assert checks["archiver"]["status"] == "critical", checks
        assert words in checks["archiver"]["seen"]
        assert checks["wal-archiving"]["status"] == "critical", checks
    # Its next attempt may be some seconds away.
    wait_for(lambda: statuses(stack.check()[1]) == all_but(), seconds=75)


def test_commits_that_only_the_server_has_are_measured_against_the_rpo(stack: System) -> None:
    """Whether the check itself would bring them to the repository, a moment later, does not matter."""
    with setting("archive_timeout", "0")(stack):
        write_wal(stack, 1)
        stack.sql("CREATE TABLE only_here AS SELECT 1")
        time.sleep(2.1)  # the age is what is tested
        late = stack.check(IOP_RPO="1")[1]["archiver"]
        assert (late["status"], "the oldest commit that the repository does not have is" in late["seen"]) == (
            "critical",
            True,
        )
        assert stack.check(IOP_RPO="60")[1]["archiver"]["status"] == "ok"
    assert statuses(stack.check(IOP_RPO="60")[1]) == all_but()


def test_an_idle_server_owes_nothing(stack: System) -> None:
    write_wal(stack, 1)
    stack.check()
    time.sleep(1.5)  # nothing is written meanwhile
    assert stack.check(IOP_RPO="1")[1]["archiver"]["status"] == "ok"


@pytest.mark.parametrize("how", ["/bin/true # pgbackrest archive-push", "queue-max"])
def test_wal_that_was_dropped_is_noticed_after_archiving_works_again(stack: System, how: str) -> None:
    """PostgreSQL was told that it is archived; pgbackrest check is content as soon as the next segment arrives."""
    conf = stack.scripts / "pgbackrest.conf"
    shipped = conf.read_text()
    if how == "queue-max":
        conf.write_text(shipped.replace("[global]\n", "[global]\narchive-push-queue-max=1MB\n", 1))
        write_wal(stack, 3)
        conf.write_text(shipped)
    else:
        with setting("archive_command", how)(stack):
            write_wal(stack, 3)
    write_wal(stack, 1)
    stack.must("pgbackrest", "--stanza=iop", "check")
    checks = stack.check()[1]
    assert checks["wal-archiving"]["status"] == "ok"
    assert "it is not in the repository" in checks["archiver"]["seen"]
    assert "WAL is missing from the repository" in checks["wal-chain"]["seen"]
    stack.must(stack.scripts / "backup.sh", "full")
    checks = stack.check()[1]
    assert (checks["archiver"]["status"], checks["wal-chain"]["status"]) == ("ok", "warning")
    assert "is not affected" in checks["wal-chain"]["seen"]
    stack.must(stack.scripts / "backup.sh", "full")  # the backup before the hole expires
    assert statuses(stack.check()[1]) == all_but()
