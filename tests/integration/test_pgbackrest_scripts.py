"""The stack's own scripts against a real PostgreSQL and a real pgBackRest."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from pgbackrest_system import System, marked, system, wait_for

pytestmark = pytest.mark.integration


@dataclass(frozen=True, slots=True)
class Grown:
    """The system, and how it answered while it was new."""

    system: System
    first_check: tuple[int, dict[str, dict[str, Any]]]
    first_backup: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def grown() -> Iterator[Grown]:
    with system() as new:
        first_check = new.check()
        yield Grown(new, first_check, new.run(new.scripts / "backup.sh"))


@pytest.fixture(scope="module")
def stack(grown: Grown) -> System:
    return grown.system


def statuses(checks: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: check["status"] for name, check in checks.items()}


def all_but(**differing: str) -> dict[str, str]:
    healthy = dict.fromkeys(("repository", "postgresql", "wal-archiving", "configuration"), "ok")
    return {**healthy, **{name.replace("_", "-"): status for name, status in differing.items()}}


# backup.sh


def test_a_new_system_warns_that_there_is_no_backup(grown: Grown) -> None:
    code, checks = grown.first_check
    assert code == 1
    assert statuses(checks) == all_but(repository="warning")
    assert "no valid backups (status 2)" in checks["repository"]["seen"]


def test_the_first_backup_is_full(grown: Grown) -> None:
    assert grown.first_backup.returncode == 0, grown.first_backup.stderr
    assert "there is no full backup yet" in grown.first_backup.stdout
    assert grown.system.backups()[0]["type"] == "full"


def test_a_backup_is_differential_until_the_full_one_is_too_old(stack: System) -> None:
    stack.must(stack.scripts / "backup.sh")
    full, diff = (stack.backups()[-2], stack.backups()[-1])
    assert (diff["type"], diff["prior"]) == ("diff", full["label"])
    wait_for(lambda: time.time() > full["timestamp"]["stop"] + 2)
    printed = stack.must(stack.scripts / "backup.sh", IOP_FULL_BACKUP_AGE="1")
    assert "more than 1" in printed
    assert stack.backups()[-1]["type"] == "full"
    assert f"backup {stack.backups()[-1]['label']} is complete" in printed


def test_a_second_backup_is_refused_at_once(stack: System) -> None:
    before = stack.backups()
    with (stack.state / "backup.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        started = time.monotonic()
        refused = stack.run(stack.scripts / "backup.sh")
    assert refused.returncode == 3
    assert "another backup is running" in refused.stderr
    assert time.monotonic() - started < 2
    assert stack.backups() == before


def test_the_lock_outlives_a_killed_script(stack: System) -> None:
    path = stack.program("pgbackrest", '[[ $* == *backup* ]] && exec sleep 600\nexec /usr/bin/pgbackrest "$@"')
    with stack.started(stack.scripts / "backup.sh", PATH=path) as (process, mark):
        wait_for(lambda: any(b"600" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in marked(mark)))
        process.kill()
        process.wait(5)
        assert stack.run(stack.scripts / "backup.sh").returncode == 3


@pytest.mark.parametrize(
    ("environment", "code", "words"),
    [
        ({"PGBACKREST_PG1_PORT": "1"}, 56, "unable to find primary"),
        ({"PGBACKREST_CONFIG": "/nope"}, 4, "unable to open missing file '/nope'"),
        ({"PGBACKREST_STANZA": "other"}, 4, "missing stanza path"),
        ({"IOP_FULL_BACKUP_AGE": "1 week"}, 2, "IOP_FULL_BACKUP_AGE is '1 week'"),
        ({"IOP_STATE_PATH": "/proc/nope"}, 2, "cannot write /proc/nope/backup.lock"),
    ],
)
def test_a_failing_backup_says_so(stack: System, environment: dict[str, str], code: int, words: str) -> None:
    before = stack.backups()
    failed = stack.run(stack.scripts / "backup.sh", **environment)
    assert (failed.returncode, stack.backups()) == (code, before)
    assert words in failed.stderr


def test_wrong_arguments_are_refused(stack: System) -> None:
    assert stack.run(stack.scripts / "backup.sh", "incr").returncode == 2


def test_success_without_a_backup_is_a_failure(stack: System) -> None:
    path = stack.program("pgbackrest", '[[ $* == *backup* ]] && exit 0\nexec /usr/bin/pgbackrest "$@"')
    failed = stack.run(stack.scripts / "backup.sh", PATH=path)
    assert failed.returncode == 5
    assert "lists no new backup" in failed.stderr


def test_a_damaged_page_fails_the_backup_and_the_check(stack: System) -> None:
    stack.sql("CREATE TABLE damaged AS SELECT generate_series(1, 1000) AS n")
    stack.sql("CHECKPOINT")
    with (stack.data / stack.sql("SELECT pg_relation_filepath('damaged')")).open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 64)
    failed = stack.run(stack.scripts / "backup.sh")
    assert failed.returncode == 5
    assert "wrong checksums" in failed.stderr
    assert "WARN: invalid page checksum" in failed.stderr
    assert statuses(stack.check()[1]) == all_but(repository="critical")
    stack.sql("DROP TABLE damaged")
    stack.must(stack.scripts / "backup.sh")
    assert statuses(stack.check()[1]) == all_but()


# check.sh


def test_healthy_checks_write_nothing_but_wal(stack: System) -> None:
    before = stack.inventory()
    code, checks = stack.check(PGBACKREST_FREQUENCY="3600")
    assert (code, statuses(checks)) == (0, all_but())
    after = stack.inventory()
    assert {name: after.get(name) for name in before} == before
    assert after.keys() - before.keys()
    assert all(name.startswith("archive/iop/") and name.endswith(".zst") for name in after.keys() - before.keys())
    report = json.loads((stack.state / "check-status.json").read_text())
    assert (report["version"], report["stanza"], report["status"]) == (1, "iop", "ok")
    finished = datetime.fromisoformat(report["finished"].replace("Z", "+00:00"))
    assert abs((datetime.now(timezone.utc) - finished).total_seconds()) < 60


Sabotage = Callable[[System], AbstractContextManager[dict[str, str]]]


@contextmanager
def repository_gone(stack: System) -> Iterator[dict[str, str]]:
    stack.repository.rename(stack.root / "away")
    try:
        yield {}
    finally:
        (stack.root / "away").rename(stack.repository)


@contextmanager
def repository_read_only(stack: System) -> Iterator[dict[str, str]]:
    directory = stack.repository / "backup" / "iop"
    directory.chmod(0o550)
    try:
        yield {}
    finally:
        directory.chmod(0o750)


@contextmanager
def server_stopped(stack: System) -> Iterator[dict[str, str]]:
    stack.postgres("stop")
    try:
        yield {}
    finally:
        stack.postgres("start")


def setting(name: str, value: str, action: str = "reload") -> Sabotage:
    @contextmanager
    def sabotage(stack: System) -> Iterator[dict[str, str]]:
        stack.sql(f"ALTER SYSTEM SET {name} = '{value}'")
        stack.postgres(action)
        try:
            if action == "reload":
                wait_for(lambda: stack.sql("SELECT count(*) FROM pg_file_settings WHERE NOT applied") == "0" or True)
            yield {}
        finally:
            stack.sql(f"ALTER SYSTEM RESET {name}")
            stack.postgres(action)

    return sabotage


def environment(**variables: str) -> Sabotage:
    @contextmanager
    def sabotage(_: System) -> Iterator[dict[str, str]]:
        yield variables

    return sabotage
