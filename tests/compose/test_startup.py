"""From nothing to a working system, and what happens when the start is not as it should be."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from deployment import Deployment, wait_for
from starting import deployed, told, up, write_password

pytestmark = pytest.mark.integration

MARKER = "/var/lib/postgresql/data.restore"


@pytest.fixture(scope="module")
def stack() -> Iterator[Deployment]:
    with deployed() as self:
        up(self)
        yield self


def complains(self: Deployment, *words: str) -> bool:
    """Tell whether the core's health check fails with these words: Docker asks only some seconds later."""
    answer = self.exec("pgbackrest", "/pgbackrest/core.sh", "--health")
    return answer.returncode == 1 and all(word in answer.stdout for word in words)


def content(self: Deployment) -> bool:
    """Tell whether the core's health check passes."""
    return self.exec("pgbackrest", "/pgbackrest/core.sh", "--health").returncode == 0


def restarts(self: Deployment, service: str) -> int:
    return int(self.containers()[service]["RestartCount"])


def archiving_never_failed(self: Deployment) -> bool:
    """Tell whether WAL was archived, and no attempt ever failed, by PostgreSQL's statistics and log."""
    archiver = json.loads(self.sql("SELECT to_json(a) FROM pg_stat_archiver a"))
    log = self.log("database")
    assert archiver["archived_count"] > 0
    assert "ready to accept connections" in log
    return archiver["failed_count"] == 0 and "archive command failed" not in log


# A good start


def test_services_start_in_order(stack: Deployment) -> None:
    began = {service: entry["State"]["StartedAt"] for service, entry in stack.containers().items()}
    assert began["pgbackrest"] < began["database"] < min(began["pgbackrest_backup"], began["pgbackrest_check"])
    log = stack.log("pgbackrest")
    assert log.index("making a new cluster") < log.index("ready: the stanza iop fits the cluster")
    assert restarts(stack, "database") == 0


def test_a_full_backup_is_there_within_a_minute_and_no_archiving_ever_failed(stack: Deployment) -> None:
    wait_for(stack.backups, 60, "the first backup")
    assert [backup["type"] for backup in stack.backups()] == ["full"]
    assert archiving_never_failed(stack)


def test_all_at_once_and_without_order_is_good_as_well(stack: Deployment) -> None:
    """As Docker starts them when the machine does."""
    stack.must("docker", "compose", "kill")
    identifiers = [entry["Id"] for entry in stack.containers().values()]
    stack.must("docker", "start", *reversed(identifiers))
    up(stack)
    assert archiving_never_failed(stack)


# Half a restore


@pytest.mark.parametrize(
    ("marker", "code", "words"),
    [
        (None, 0, ""),
        ('{"version": 1, "stage": "planned", "target": []}', 0, ""),
        ('{"version": 1, "stage": "restored", "target": []}', 0, ""),
        ('{"version": 1, "stage": "wiping", "target": []}', 1, "interrupted"),
        ('{"version": 1, "stage": "wiped", "target": []}', 1, "interrupted"),
        ('{"version": 1, "stage": "restoring", "target": ["name", "planned"]}', 1, "interrupted"),
        ('{"version": 1, "stage": "failed", "target": []}', 1, "could not recover"),
        ("", 1, "not readable"),
        ('{"stage": "plan', 1, "not readable"),
    ],
)
def test_the_marker_decides_whether_the_database_may_start(
    stack: Deployment, marker: str | None, code: int, words: str
) -> None:
    write = "rm -f /tmp/data.restore" if marker is None else f"printf %s '{marker}' >/tmp/data.restore"
    script = f"{write}; PGDATA=/tmp/data exec /pgbackrest/database.sh --check"
    answer = stack.exec("pgbackrest", "bash", "-c", script)
    assert (answer.returncode, answer.stdout) == (code, "")
    assert words in answer.stderr
    assert ("HINT: " in answer.stderr) == (code != 0)


def test_the_database_does_not_start_on_half_a_restore(stack: Deployment) -> None:
    before = restarts(stack, "database")
    stack.must("docker", "compose", "stop", "database")
    marker = '{"version": 1, "stage": "restoring", "target": [], "options": []}'
    assert stack.exec("pgbackrest", "bash", "-c", f"printf %s '{marker}' >{MARKER}").returncode == 0
    try:
        stack.must("docker", "compose", "start", "database")
        wait_for(lambda: restarts(stack, "database") > before + 1, 20, "Docker tries again")
        wait_for(lambda: stack.health("pgbackrest") == "unhealthy", 20, "the core's trouble")
        words = told(stack.containers()["pgbackrest"])
        assert "interrupted" in words
        assert "./control.sh restore" in words
        assert "PostgreSQL" not in stack.log("database").rpartition("database system is shut down")[2]
        assert "run the same restore again" in stack.log("database")
        assert stack.log("pgbackrest").count("interrupted") == 1
        assert stack.exec("pgbackrest", "pgbackrest", "info").returncode == 0
    finally:
        stack.exec("pgbackrest", "rm", MARKER)
    stack.must("docker", "compose", "restart", "--no-deps", "database")  # sooner than Docker would
    wait_for(lambda: stack.health("database") == "healthy", 60, "the database is back")
    wait_for(lambda: content(stack), 20, "the core is content")


def test_the_database_does_not_start_while_a_restore_works(stack: Deployment) -> None:
    stack.must("docker", "compose", "stop", "database")
    lock = ("flock", "/var/lib/postgresql/data.lock", "sh", "-c", "echo $$ >/tmp/holder; exec sleep 300")
    stack.must("docker", "compose", "exec", "--detach", "pgbackrest", *lock)
    wait_for(lambda: stack.exec("pgbackrest", "test", "-s", "/tmp/holder").returncode == 0, 10, "the lock")
    try:
        stack.must("docker", "compose", "start", "database")
        wait_for(lambda: "data is in use" in stack.log("database"), 20, "the refusal")
    finally:
        assert stack.exec("pgbackrest", "sh", "-c", "kill $(cat /tmp/holder)").returncode == 0
    wait_for(lambda: stack.health("database") == "healthy", 60, "the database comes back by itself")


def test_a_lock_that_is_held_for_a_moment_is_waited_for(stack: Deployment) -> None:
    """As the core service holds it, when it looks at a cluster that has just been restored."""
    stack.must("docker", "compose", "stop", "database")
    lock = ("flock", "/var/lib/postgresql/data.lock", "sh", "-c", "echo $$ >/tmp/moment; exec sleep 4")
    stack.must("docker", "compose", "exec", "--detach", "pgbackrest", *lock)
    wait_for(lambda: stack.exec("pgbackrest", "test", "-s", "/tmp/moment").returncode == 0, 10, "the lock")
    stack.must("docker", "compose", "start", "database")
    assert stack.exec("pgbackrest", "flock", "--nonblock", lock[1], "true").returncode == 1
    wait_for(lambda: stack.health("database") == "healthy", 60, "the database")
    assert restarts(stack, "database") == 0


# Trouble, which the core says and outlives


def test_a_file_that_the_container_cannot_read_is_named(stack: Deployment) -> None:
    configuration = stack.directory / "pgbackrest" / "pgbackrest.conf"
    configuration.chmod(0o600)
    try:
        stack.must("docker", "compose", "restart", "--no-deps", "pgbackrest")
        wait_for(lambda: complains(stack, "/pgbackrest/pgbackrest.conf is not readable"), 60, "trouble")
        assert "chmod -R a+rX" in stack.log("pgbackrest")
    finally:
        configuration.chmod(0o644)
    wait_for(lambda: content(stack), 20, "the core is content")


def test_scripts_that_the_container_cannot_reach_are_named(stack: Deployment) -> None:
    """As after a git clone with umask 077: the core cannot even begin."""
    scripts = stack.directory / "pgbackrest"
    scripts.chmod(0o700)
    try:
        stack.compose("restart", "--no-deps", "pgbackrest")
        wait_for(lambda: "exec /pgbackrest/core.sh failed: Permission denied" in stack.log("pgbackrest"), 20, "a word")
    finally:
        scripts.chmod(0o755)
    wait_for(lambda: content(stack), 60, "Docker starts it again")


def test_a_repository_that_cannot_be_read_does_not_end_the_core(stack: Deployment) -> None:
    repository = "/var/lib/pgbackrest/backup"
    assert stack.exec("pgbackrest", "chmod", "0", repository).returncode == 0
    try:
        stack.must("docker", "compose", "restart", "--no-deps", "pgbackrest")
        wait_for(lambda: complains(stack, "ERROR", "HINT", repository), 60, "the core's trouble")
    finally:
        assert stack.exec("pgbackrest", "chmod", "750", repository).returncode == 0
    wait_for(lambda: content(stack), 20, "the core is content")
    assert restarts(stack, "pgbackrest") == 0


def test_lost_data_is_not_replaced_by_an_empty_database(stack: Deployment) -> None:
    before = stack.backups()
    stack.must("docker", "compose", "down")
    stack.must("docker", "volume", "rm", f"{stack.project}_database_data")
    for service in ("pgbackrest", "database"):
        stack.must("docker", "compose", "up", "--detach", "--no-deps", service)
    wait_for(lambda: complains(stack, "has backups", "./control.sh restore"), 60, "the core's trouble")
    wait_for(lambda: "holds no cluster" in stack.log("database"), 10, "the database's refusal")
    assert stack.exec("pgbackrest", "test", "-e", "/var/lib/postgresql/data").returncode == 1
    assert stack.backups() == before
    # Nothing but a repository without backups lets it begin anew.
    stack.must("docker", "compose", "stop", "database")
    everything = "find /var/lib/pgbackrest -mindepth 1 -delete"
    assert stack.exec("pgbackrest", "sh", "-c", everything).returncode == 0
    wait_for(lambda: content(stack), 30, "a new cluster")


def test_without_a_password_no_cluster_is_made() -> None:
    with deployed() as self:
        write_password(self, "\n")
        self.must("docker", "compose", "up", "--detach", "--no-deps", "pgbackrest")
        wait_for(lambda: "no password for the superuser" in self.log("pgbackrest"), 20, "the core's trouble")
        assert self.exec("pgbackrest", "test", "-e", "/var/lib/postgresql/data").returncode == 1
        # What is written into a mounted file arrives.
        (self.directory / "secrets" / "database_password").write_text("swordfish\n")
        wait_for(lambda: content(self), 30, "a cluster")
