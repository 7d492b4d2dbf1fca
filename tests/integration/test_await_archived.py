"""A segment counts as archived when none before it is still on its way; one that is lost for good is not waited for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import DeadlineError
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack.base import Service

pytestmark = [pytest.mark.integration, pytest.mark.iop_dataset(users=20)]


def archive_by(site: Site, command: str | None) -> None:
    site.sql(
        "ALTER SYSTEM RESET archive_command" if command is None else f"ALTER SYSTEM SET archive_command = {command}"
    )
    site.sql("SELECT pg_reload_conf()")


def held_back(site: Site) -> list[str]:
    """Let PostgreSQL fail to archive two segments; return their names."""
    archive_by(site, "'/bin/false'")
    segments = [site.switch_wal(), site.switch_wal()]
    failed = f"SELECT last_failed_wal = '{segments[0]}' FROM pg_stat_archiver"
    wait_until(lambda: site.sql(failed)[0][0], limit=20, what="the archiver to fail")
    return segments


def push(drill: Drill, segment: str) -> None:
    """Push a segment as pgBackRest does side by side with others."""
    path = str(drill.stack.places.data / "pg_wal" / segment)
    drill.stack.host(Service.DATABASE).run(["pgbackrest", "archive-push", "--no-archive-async", path], timeout=60)


def test_a_segment_that_overtook_another_is_not_enough(iop_stack: Drill) -> None:
    site, quick = Site(iop_stack.stack, iop_stack.limits), replace(iop_stack.limits, archive=1)
    first, second = held_back(site)
    with pytest.raises(DeadlineError, match=f"waited 1 s for WAL segment {second} to reach the repository, in vain\n"):
        pgbackrest.await_archived(iop_stack.stack, second, quick)
    push(iop_stack, second)
    with pytest.raises(DeadlineError, match=f"{second} .*: {first} before it, still to be archived, did not"):
        pgbackrest.await_archived(iop_stack.stack, second, quick)
    archive_by(site, None)
    pgbackrest.await_archived(iop_stack.stack, second, iop_stack.limits)
    archive_id = pgbackrest.info(iop_stack.stack, iop_stack.limits).archive_id
    assert archive_id is not None
    assert pgbackrest.archived(iop_stack.stack, archive_id, first, iop_stack.limits)


def test_a_segment_that_is_lost_is_not_waited_for(iop_stack: Drill) -> None:
    site, quick = Site(iop_stack.stack, iop_stack.limits), replace(iop_stack.limits, archive=5)
    _, second = held_back(site)
    push(iop_stack, second)
    archive_by(site, "'/bin/true'")
    pgbackrest.await_archived(iop_stack.stack, second, quick)


def test_where_the_database_is_down_what_is_missing_is_told_and_what_is_there_is_enough(iop_stack: Drill) -> None:
    site, quick = Site(iop_stack.stack, iop_stack.limits), replace(iop_stack.limits, archive=1)
    first, second = held_back(site)
    iop_stack.stack.stop(Service.DATABASE, immediate=True)
    push(iop_stack, second)
    with pytest.raises(DeadlineError, match=f"{first} before it"):
        pgbackrest.await_archived(iop_stack.stack, second, quick)
    push(iop_stack, first)
    pgbackrest.await_archived(iop_stack.stack, second, quick)
    iop_stack.stack.wipe_data()
    pgbackrest.await_archived(iop_stack.stack, second, quick)
