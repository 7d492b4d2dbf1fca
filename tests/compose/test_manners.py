"""Good manners of every container in production. Each test asks the running containers, not compose.yaml."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from deployment import Deployment, wait_for
from starting import SERVICES, deployed, up

pytestmark = pytest.mark.integration

RESTORE = ("database_wipe", "pgbackrest_restore")
ALL = (*SERVICES, *RESTORE)
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def stack() -> Iterator[Deployment]:
    with deployed(DATABASE_MEMORY_LIMIT="600m", PGBACKREST_MEMORY_LIMIT="200m") as self:
        up(self)
        self.must("docker", "compose", "--profile", "restore", "create")
        yield self


def inside(self: Deployment, service: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a service's container; for those of a restore, in a new one."""
    if service in RESTORE:
        return self.compose("run", "--rm", "-T", "--entrypoint", argv[0], service, *argv[1:])
    return self.exec(service, *argv)


@pytest.mark.parametrize("service", ALL)
def test_rights_are_few_and_cannot_grow(stack: Deployment, service: str) -> None:
    status = inside(stack, service, "cat", "/proc/self/status").stdout
    found = dict(re.findall(r"^(Uid|Gid|CapEff|CapBnd|CapPrm|NoNewPrivs):\t(.*)$", status, re.MULTILINE))
    assert set(found.pop("Uid").split()) == set(found.pop("Gid").split()) == {"999"}
    assert found.pop("NoNewPrivs") == "1"
    assert {name: int(value, 16) for name, value in found.items()} == {"CapEff": 0, "CapBnd": 0, "CapPrm": 0}


@pytest.mark.parametrize("service", SERVICES)
def test_every_process_is_of_the_ordinary_user(stack: Deployment, service: str) -> None:
    container = stack.containers()[service]["Id"]
    users = stack.must("docker", "top", container, "-eo", "uid,pid").split()[2::2]
    assert len(users) > 1
    assert set(users) == {"999"}


@pytest.mark.parametrize("service", ALL)
def test_the_root_file_system_cannot_be_written(stack: Deployment, service: str) -> None:
    places = "/x /etc/x /usr/x /var/tmp/x /pgbackrest/x"
    script = f"touch /tmp/x && echo good; for place in {places}; do touch $place && echo bad; done"
    answer = inside(stack, service, "sh", "-c", script)
    assert answer.stdout == "good\n"
    assert answer.stderr.count("Read-only file system") == len(places.split())
    assert stack.containers()[service]["HostConfig"]["ReadonlyRootfs"]


def test_a_restore_cannot_write_to_the_repository(stack: Deployment) -> None:
    answer = inside(stack, "pgbackrest_restore", "touch", "/var/lib/pgbackrest/x")
    assert (answer.returncode, "Read-only file system" in answer.stderr) == (1, True)
    assert inside(stack, "pgbackrest_restore", "touch", "/var/lib/postgresql/x").returncode == 0
    assert inside(stack, "database_wipe", "ls", "/var/lib/pgbackrest").stdout == ""


def test_workers_cannot_write_to_the_database(stack: Deployment) -> None:
    for service in ("pgbackrest_backup", "pgbackrest_check"):
        answer = inside(stack, service, "touch", "/var/lib/postgresql/x")
        assert (answer.returncode, "Read-only file system" in answer.stderr) == (1, True)


@pytest.mark.parametrize("service", ALL)
def test_no_port_is_published_and_only_the_database_has_a_network(stack: Deployment, service: str) -> None:
    container = stack.containers()[service]
    assert container["HostConfig"]["PortBindings"] in ({}, None)
    assert not container["HostConfig"]["PublishAllPorts"]
    own = f"{stack.project}_default" if service == "database" else "none"
    assert container["HostConfig"]["NetworkMode"] == own
    devices = inside(stack, service, "cat", "/proc/net/dev").stdout
    assert ("eth0:" in devices) == (service == "database")


@pytest.mark.parametrize("service", ALL)
def test_an_init_reaps_and_logs_rotate(stack: Deployment, service: str) -> None:
    assert inside(stack, service, "cat", "/proc/1/comm").stdout.strip() in {"docker-init", "tini"}
    log = stack.containers()[service]["HostConfig"]["LogConfig"]
    assert log == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "5"}}


@pytest.mark.parametrize("service", ALL)
def test_a_stopped_service_stays_so_and_a_failed_one_is_started_again(stack: Deployment, service: str) -> None:
    policy = stack.containers()[service]["HostConfig"]["RestartPolicy"]["Name"]
    assert policy == ("no" if service in RESTORE else "unless-stopped")


@pytest.mark.parametrize("service", ALL)
def test_limits_are_those_of_the_variables(stack: Deployment, service: str) -> None:
    host = stack.containers()[service]["HostConfig"]
    assert host["Memory"] == (600 if service == "database" else 200) * MEGABYTE
    assert host["PidsLimit"] == 512


def test_the_memory_limit_is_in_force(stack: Deployment) -> None:
    take = "import sys; taken = b'x' * (int(sys.argv[1]) << 20); print(len(taken) >> 20)"
    fits = stack.exec("pgbackrest", "python3", "-c", take, "100")
    assert (fits.returncode, fits.stdout) == (0, "100\n")
    # Twice the limit, and more: where there is swap, as much again may be used of it.
    assert stack.exec("pgbackrest", "python3", "-c", take, "500").returncode == 137


# The password


def processes(self: Deployment) -> Iterator[bytes]:
    """Yield command line and environment of each process in the containers."""
    for container in self.containers().values():
        if container["State"]["Running"]:
            for pid in self.must("docker", "top", container["Id"], "-eo", "pid").split()[1:]:
                for name in ("cmdline", "environ"):
                    with suppress(OSError):  # it may have ended
                        yield Path("/proc", pid, name).read_bytes()


def test_the_password_shows_nowhere(stack: Deployment) -> None:
    password = (stack.directory / "secrets" / "database_password").read_text().strip()
    places = {
        "docker inspect": json.dumps(stack.containers()),
        "docker compose config": stack.must("docker", "compose", "--profile", "restore", "config"),
        "logs": "".join(stack.log(service) for service in ALL),
        "processes": b"\n".join(processes(stack)).decode(errors="replace"),
        "image": stack.must("docker", "history", "--no-trunc", stack.containers()["database"]["Image"]),
    }
    assert all(len(text) > 100 for text in places.values())
    assert [place for place, text in places.items() if password in text] == []
    for service in ("database", "pgbackrest_backup", "pgbackrest_check", *RESTORE):
        assert inside(stack, service, "ls", "/run/secrets").returncode != 0


def login(self: Deployment, password: str, host: str = "database") -> subprocess.CompletedProcess[str]:
    """Log in as superuser over TCP, from a container on the network of the applications."""
    image = self.containers()["database"]["Config"]["Image"]
    return self.run(
        "docker", "run", "--rm", "--network", f"{self.project}_default", "--env", f"PGPASSWORD={password}", image,
        "psql", "--no-password", "-XAtqh", host, "-U", "postgres", "-c", "SELECT 'in'",
    )  # fmt: skip


def test_the_superuser_logs_in_over_the_network_with_the_password_alone(stack: Deployment) -> None:
    password = (stack.directory / "secrets" / "database_password").read_text().strip()
    assert login(stack, password).stdout == "in\n"
    wrong = login(stack, password[:-1])
    assert (wrong.returncode, "password authentication failed" in wrong.stderr) == (2, True)
    assert "no password supplied" in login(stack, "").stderr


def test_a_socket_trusts_the_user_of_the_containers_only(stack: Deployment) -> None:
    assert stack.sql("SELECT current_user") == "postgres"
    stack.sql("CREATE ROLE application LOGIN")
    refused = stack.exec("database", "psql", "-U", "application", "-d", "postgres", "-c", "SELECT 1")
    assert 'Peer authentication failed for user "application"' in refused.stderr


# The end


def test_a_busy_stack_stops_within_ten_seconds_and_in_order(stack: Deployment) -> None:
    stack.sql("CREATE TABLE busy AS SELECT generate_series(1, 300000) AS n")
    for sql in ("SELECT pg_sleep(600)", "INSERT INTO busy SELECT generate_series(1, 100000000)"):
        stack.must("docker", "compose", "exec", "--detach", "database", "psql", "-c", sql)
    active = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state = 'active'"
    wait_for(lambda: int(stack.sql(active)) >= 3, 10, "clients")
    began = time.monotonic()
    stack.must("docker", "compose", "stop")
    assert time.monotonic() - began < 10
    ends = {name: entry["State"] for name, entry in stack.containers().items() if name in SERVICES}
    assert {name: state["ExitCode"] for name, state in ends.items()} == dict.fromkeys(SERVICES, 0)
    workers = max(ends[name]["FinishedAt"] for name in ("pgbackrest_backup", "pgbackrest_check"))
    assert workers < ends["database"]["FinishedAt"] < ends["pgbackrest"]["FinishedAt"]
    assert "database system is shut down" in stack.log("database")
