"""The check of the backups on what only shows in what the backups say of themselves; the rest is in the files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from damage import aside, rewrite_info, rewritten
from pgbackrest_system import System, all_but, statuses, system, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stack() -> Iterator[System]:
    with system() as new:
        new.must(new.scripts / "backup.sh")
        wait_for(lambda: new.check()[0] == 0, seconds=30)
        yield new


def test_a_sudden_change_of_size_is_seen(stack: System) -> None:
    stack.sql("CREATE TABLE much AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 40000)")
    stack.must(stack.scripts / "backup.sh", "full")
    found = stack.check(IOP_SIZE_CHANGE="2")[1]["backups"]
    label = stack.backups()[-1]["label"]
    assert (found["status"], f"the database in backup {label} is" in found["seen"]) == ("warning", True), found
    assert statuses(stack.check(IOP_SIZE_CHANGE="4")[1]) == all_but()
    stack.sql("DROP TABLE much")
    stack.must("pgbackrest", "--stanza=iop", f"--set={label}", "expire")
    stack.must(stack.scripts / "backup.sh", "full")
    assert statuses(stack.check(IOP_SIZE_CHANGE="2")[1]) == all_but()


def test_a_backup_of_the_future_is_seen(stack: System) -> None:
    """As if the clock had been an hour ahead while it was taken."""

    def ahead(section: str, value: str) -> str:
        moments = r'("backup-timestamp-(?:start|stop)":)(\d+)'
        return re.sub(moments, lambda m: f"{m[1]}{int(m[2]) + 3600}", value) if section == "backup:current" else value

    info = stack.repository / "backup" / "iop" / "backup.info"
    copy = info.with_name("backup.info.copy")
    with rewritten(info, bytes), rewritten(copy, bytes):
        for path in (info, copy):
            rewrite_info(path, ahead)
        assert stack.backups()[-1]["timestamp"]["stop"] > time.time()
        checks = stack.check()[1]
        assert statuses(checks) == all_but(backups="critical")
        assert f"taken in the future: backup {stack.backups()[0]['label']}" in checks["backups"]["seen"]
    assert statuses(stack.check()[1]) == all_but()


def test_a_repository_without_its_history_is_another_one(stack: System) -> None:
    """Which backups it once had, pgBackRest keeps in backup.history alone."""
    with aside(stack.repository / "backup" / "iop" / "backup.history"):
        found = stack.check()[1]["repository"]
        assert (found["status"], "it has never had backup 20" in found["seen"]) == ("critical", True), found
    assert statuses(stack.check()[1]) == all_but()
