"""``docker compose ps`` tells the truth: what is broken turns a service unhealthy, what is mended makes it healthy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest
from deployment import Deployment, wait_for
from starting import SERVICES, deployed, told, up

pytestmark = pytest.mark.integration

SETTINGS = {"DATABASE_BACKUP_FREQUENCY": "2", "PGBACKREST_CHECK_FREQUENCY": "1", "IOP_HEARTBEAT": "1"}
BACKUP, CHECK = "pgbackrest_backup", "pgbackrest_check"
# A run of the checks that is under way when archiving breaks takes all of archive-timeout, by default 60 s.
HURRIED = {"services": {name: {"environment": {"PGBACKREST_ARCHIVE_TIMEOUT": "8"}} for name in (BACKUP, CHECK)}}


@pytest.fixture(scope="module")
def running() -> Iterator[Deployment]:
    with deployed(**SETTINGS) as self:
        (self.directory / "compose.override.yaml").write_text(json.dumps(HURRIED))
        up(self)
        yield self


@pytest.fixture
def stack(running: Deployment) -> Iterator[Deployment]:
    """Give the module's deployment, all healthy, before and after."""
    wait_until_healthy(running)
    yield running
    wait_until_healthy(running)


def wait_until_healthy(self: Deployment) -> None:
    wait_for(lambda: {self.health(service) for service in SERVICES} == {"healthy"}, 60, "all is well")


def wait_for_complaint(self: Deployment, service: str, words: str) -> None:
    """Wait until a service is unhealthy for the reason in these words, and shows so in ``docker compose ps``."""
    wait_for(lambda: self.health(service) == "unhealthy", 60, f"{service} is unhealthy")
    assert words in told(self.containers()[service])
    assert "(unhealthy)" in self.must("docker", "compose", "ps", service)


def signal_worker(self: Deployment, service: str, signal: str) -> int:
    """Send a signal to a worker, and to nothing that it runs; return kill's exit code."""
    state = json.loads(
        self.exec(service, "cat", f"/var/lib/iop-backup/{service.removeprefix('pgbackrest_')}.json").stdout
    )
    return self.exec(service, "bash", "-c", f"kill -{signal} {state['pid']}").returncode


@contextmanager
def undone(self: Deployment, service: str, *argv: str) -> Iterator[None]:
    """Undo a fault at the end by a program in a container, come what may."""
    try:
        yield
    finally:
        assert self.exec(service, *argv).returncode == 0


def test_the_reason_is_one_line(stack: Deployment) -> None:
    assert told(stack.containers()[BACKUP]) == "worker backup: ok\n"
    assert told(stack.containers()[CHECK]) == "worker check: ok\n"
    assert told(stack.containers()["pgbackrest"]) == "data directory and repository fit\n"
    assert "accepting connections" in told(stack.containers()["database"])


def test_broken_archiving_turns_the_check_unhealthy(stack: Deployment) -> None:
    stack.sql("ALTER SYSTEM SET archive_command = 'false'")
    reset = ("psql", "-c", "ALTER SYSTEM RESET archive_command", "-c", "SELECT pg_reload_conf()")
    with undone(stack, "database", *reset):
        stack.sql("SELECT pg_reload_conf()")
        wait_for_complaint(stack, CHECK, "exit code 2")
        assert "CRITICAL wal-archiving" in stack.log(CHECK)


def test_a_repository_that_cannot_be_written_turns_backup_and_check_unhealthy(stack: Deployment) -> None:
    directory = "/var/lib/pgbackrest/backup/iop"
    with undone(stack, "pgbackrest", "chmod", "750", directory):
        assert stack.exec("pgbackrest", "chmod", "550", directory).returncode == 0
        wait_for_complaint(stack, BACKUP, "the last run ended with exit code")
        wait_for_complaint(stack, CHECK, "exit code 2")
        assert f"no right to write or to read {directory}" in stack.log(CHECK)


def test_a_stopped_database_turns_the_check_unhealthy(stack: Deployment) -> None:
    stack.must("docker", "compose", "stop", "database")
    try:
        wait_for_complaint(stack, CHECK, "exit code 2")
    finally:
        stack.must("docker", "compose", "start", "database")


@pytest.mark.parametrize("service", [BACKUP, CHECK])
def test_a_worker_that_was_killed_is_started_again(stack: Deployment, service: str) -> None:
    before = stack.containers()[service]
    signal_worker(stack, service, "KILL")  # the container may be gone before kill has ended
    wait_for(lambda: stack.containers()[service]["RestartCount"] == before["RestartCount"] + 1, 20, "a new start")
    wait_for(lambda: stack.health(service) == "healthy", 60, "the worker is back")


def test_a_worker_that_hangs_is_unhealthy(stack: Deployment) -> None:
    assert signal_worker(stack, CHECK, "STOP") == 0
    try:
        wait_for_complaint(stack, CHECK, "no heartbeat for")
    finally:
        assert signal_worker(stack, CHECK, "CONT") == 0


def test_backups_go_on_through_all_of_it(stack: Deployment) -> None:
    newest = stack.backups()[-1]["label"]
    wait_for(lambda: stack.backups()[-1]["label"] > newest, 20, "another backup")
    state = json.loads(stack.exec(BACKUP, "cat", "/var/lib/iop-backup/backup.json").stdout)
    assert datetime.fromisoformat(state["since"][:-1]) <= datetime.fromisoformat(state["heartbeat"][:-1])
