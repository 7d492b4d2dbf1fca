"""The operators' commands on a deployed system: up, down, status, backup, check, info, logs, psql."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Deployment, running, wait_for

CONFIRMATION = "I_UNDERSTAND_THIS_WILL_DELETE_ALL_BACKUPS"
PASSWORD = "secrets/database_password"
SERVICES = ("database", "pgbackrest", "pgbackrest_backup", "pgbackrest_check")


@pytest.fixture(scope="module")
def system() -> Iterator[Deployment]:
    with running() as it:
        yield it


def identity(system: Deployment) -> dict[str, tuple[str, str]]:
    return {name: (entry["Id"], entry["State"]["StartedAt"]) for name, entry in system.containers().items()}


def volumes(system: Deployment) -> list[str]:
    label = f"label=com.docker.compose.project={system.project}"
    return system.must("docker", "volume", "ls", "--quiet", "--filter", label).split()


class TestUp:
    def test_the_password_was_generated_for_the_containers_alone(self, system: Deployment) -> None:
        file = system.directory / PASSWORD
        assert stat.S_IMODE(file.stat().st_mode) == 0o444
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert re.fullmatch(r"[\w-]{43}", file.read_text())
        assert list(file.parent.glob("database_password*")) == [file]

    def test_again_changes_nothing(self, system: Deployment) -> None:
        before, password = identity(system), (system.directory / PASSWORD).read_text()
        result = system.run("bash", "-c", 'umask 077; cd / && exec "$0" up', system.directory / "control.sh")
        assert result.returncode == 0, result.stderr
        assert identity(system) == before
        assert (system.directory / PASSWORD).read_text() == password

    def test_scripts_that_containers_cannot_read_are_named(self, system: Deployment) -> None:
        script = system.directory / "pgbackrest" / "worker.sh"
        for mode, seen in ((0o700, "worker.sh"), (0o644, "worker.sh")):
            script.chmod(mode)
            result = system.control("up")
            assert (result.returncode, seen in result.stderr, "HINT: chmod" in result.stderr) == (4, True, True)
        script.chmod(0o755)

    def test_an_empty_password_is_refused(self, system: Deployment, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        result = system.control("up", DATABASE_PASSWORD_FILE=str(tmp_path / "empty"))
        assert result.returncode == 4
        assert "password is empty" in result.stderr


class TestStatus:
    def test_a_healthy_system_on_one_screen(self, system: Deployment) -> None:
        wait_for(lambda: system.health("pgbackrest_check") == "healthy")
        started = time.monotonic()
        result = system.control("status")
        assert time.monotonic() - started < 2
        assert result.returncode == 0, result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 80
        assert "HEALTHY" in result.stdout.splitlines()[0]
        assert "\033" not in result.stdout
        for word in (*SERVICES, system.backups()[-1]["label"], "oldest moment", "newest moment", "waiting segments: 0"):
            assert word in result.stdout, word
        for word in ("database_data", "pg_backrest_repo", "pg_backrest_spool", "pg_backrest_state", "GiB free of"):
            assert word in result.stdout, word
        assert re.search(r"never +backups are not reliable", result.stdout)

    def test_colour_is_for_terminals(self, system: Deployment) -> None:
        plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        for environment, coloured in ((plain, True), ({**plain, "NO_COLOR": "1"}, False)):
            ours, theirs = pty.openpty()
            process = subprocess.Popen(
                [system.directory / "control.sh", "status"], stdout=theirs, stderr=theirs, env=environment
            )
            os.close(theirs)
            printed = b""
            while block := read(ours):
                printed += block
            os.close(ours)
            assert process.wait(30) == 0
            assert (b"\033[32m" in printed) is coloured

    def test_the_last_drill_is_read_from_its_report(self, system: Deployment) -> None:
        report = system.directory / "reports" / "latest" / "record.json"
        report.parent.mkdir(parents=True)
        for text, code, seen in (
            (
                {"verdict": "passed", "finished": "2026-01-15T21:30:00.123456+00:00"},
                0,
                r"passed +2026-01-15 21:30:00 UTC",
            ),
            ({"verdict": "failed", "finished": "2026-01-15T21:30:00+00:00"}, 1, r"failed +2026-01-15 21:30:00 UTC"),
            ("no record", 1, "Last drill\n +unknown"),
        ):
            report.write_text(json.dumps(text))
            result = system.control("status")
            assert result.returncode == code
            assert re.search(seen, result.stdout), result.stdout
        shutil.rmtree(system.directory / "reports")

    def test_a_stopped_service_is_named(self, system: Deployment) -> None:
        """Whichever it is, the core service, where the questions are asked, included; and all else is still there."""
        for service in ("pgbackrest", "database"):
            system.must("docker", "compose", "stop", service)
            result = system.control("status")
            assert result.returncode == 1
            assert re.search(rf"\n  {service} +exited, since ", result.stdout), result.stdout
            assert "last full" in result.stdout
            system.must("docker", "compose", "start", service)
        wait_for(lambda: system.control("status").returncode == 0, what="healthy again")

    def test_a_hanging_database_hides_nothing_else(self, system: Deployment) -> None:
        system.must("docker", "compose", "pause", "database")
        try:
            result = system.control("status", timeout=20)
        finally:
            system.must("docker", "compose", "unpause", "database")
        assert result.returncode == 1
        assert re.search(r"\n  database +paused", result.stdout), result.stdout
        assert "the server does not answer" in result.stdout
        assert "last full" in result.stdout

    def test_an_unreadable_repository_hides_nothing_else(self, system: Deployment) -> None:
        system.must("docker", "compose", "exec", "-T", "pgbackrest", "chmod", "0", "/var/lib/pgbackrest/backup")
        try:
            result = system.control("status")
        finally:
            system.must("docker", "compose", "exec", "-T", "pgbackrest", "chmod", "0750", "/var/lib/pgbackrest/backup")
        assert result.returncode == 1
        assert "ermission denied" in result.stdout
        assert "database_data" in result.stdout


class TestCommands:
    def test_backup_full_and_diff(self, system: Deployment) -> None:
        system.sql("CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)")
        for kind in ("full", "diff"):
            result = system.control("backup", kind)
            assert result.returncode == 0, result.stderr
            newest = system.backups()[-1]
            assert newest["type"] == kind
            assert f"backup {newest['label']} is complete" in result.stdout
            assert newest["label"] in system.control("status").stdout

    def test_wrong_arguments(self, system: Deployment) -> None:
        before = len(system.backups())
        for command in (["backup", "incr"], ["backup", "full", "diff"], ["check", "x"], ["status", "x"], ["up", "x"]):
            assert system.control(*command).returncode == 2, command
        assert len(system.backups()) == before

    def test_check_passes_its_exit_code_on(self, system: Deployment) -> None:
        result = system.control("check")
        assert (result.returncode, "OK       wal-archiving" in result.stdout) == (0, True), result.stdout
        system.sql("ALTER SYSTEM SET archive_timeout = 0")
        system.sql("SELECT pg_reload_conf()")
        try:
            result = system.control("check")
            assert result.returncode == 1, result.stdout
            assert "archive_timeout is 0" in result.stdout
        finally:
            system.sql("ALTER SYSTEM RESET archive_timeout")
            system.sql("SELECT pg_reload_conf()")

    def test_info_logs_psql(self, system: Deployment) -> None:
        assert json.loads(system.control("info", "--output=json").stdout)[0]["name"] == "iop"
        assert "backup.sh" in system.control("logs", "--no-color", "pgbackrest_backup").stdout
        assert system.control("psql", "-Atc", "SELECT 6 * 7").stdout == "42\n"
        result = system.run(system.directory / "control.sh", "psql", "-At", stdin="SELECT 6 * 9;\n")
        assert result.stdout == "54\n"
        assert system.control("psql", "-c", "nonsense").returncode == 1

    def test_a_service_that_does_not_run_is_named(self, system: Deployment) -> None:
        system.must("docker", "compose", "stop", "pgbackrest_check")
        result = system.control("check")
        system.must("docker", "compose", "start", "pgbackrest_check")
        assert result.returncode == 1
        assert "pgbackrest_check is not running" in result.stderr
        assert "HINT: ./control.sh up" in result.stderr

    def test_bash_coreutils_and_docker_are_enough(self, system: Deployment, tmp_path: Path) -> None:
        listing = subprocess.run(["dpkg", "-L", "coreutils"], capture_output=True, text=True, check=True).stdout
        names = {Path(line).name for line in listing.splitlines() if "bin/" in line} | {"bash", "docker"}
        for name in names:
            if found := shutil.which(name):
                (tmp_path / name).symlink_to(found)
        assert not (tmp_path / "python3").exists()
        for command in (["up"], ["status"], ["backup", "diff"], ["check"]):
            result = system.control(*command, PATH=str(tmp_path))
            assert result.returncode == 0, result.stdout + result.stderr
            assert "not found" not in result.stderr

    def test_an_ordinary_user_who_may_use_docker(self, system: Deployment) -> None:
        socket = Path("/var/run/docker.sock").stat()
        system.directory.chmod(0o755)
        user = ["setpriv", "--reuid=65534", "--regid=65534", f"--groups={socket.st_gid}"]
        for command in ("up", "status", "check"):
            result = system.run(*user, system.directory / "control.sh", command, HOME="/nonexistent")
            assert result.returncode == 0, result.stdout + result.stderr


class TestDown:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["--volumes"],
            ["--volumes", ""],
            ["--volumes", CONFIRMATION.lower()],
            ["--volumes", f"{CONFIRMATION} "],
            ["--volumes", CONFIRMATION[:-1]],
            ["--volumes", "I_UNDERSTAND_THIS_WILL_DELETE_DATABASE_DATA"],
            [CONFIRMATION, "--volumes"],
            ["--volumes", CONFIRMATION, "x"],
            ["--timeout=1"],
        ],
    )
    def test_without_the_exact_confirmation_nothing_is_touched(self, system: Deployment, arguments: list[str]) -> None:
        before = identity(system)
        result = system.control("down", *arguments, BASHOPTS="nocasematch")
        assert result.returncode == 2
        assert identity(system) == before

    def test_volumes_stay_until_their_deletion_is_confirmed(self, system: Deployment) -> None:
        system.sql("CREATE TABLE kept AS SELECT 42 AS n")
        before = volumes(system)
        assert len(before) == 5
        assert system.control("down").returncode == 0
        assert system.containers() == {}
        assert volumes(system) == before
        screen = system.control("status")
        assert screen.returncode == 1
        assert "absent: ./control.sh up" in screen.stdout
        assert "last full" in screen.stdout
        assert system.control("psql", "-c", "SELECT 1").returncode == 1
        assert system.control("up").returncode == 0
        assert system.sql("SELECT n FROM kept") == "42"
        assert system.control("down", "--volumes", CONFIRMATION).returncode == 0
        assert volumes(system) == []
        screen = system.control("status")
        assert (screen.returncode, "has not been started yet" in screen.stderr) == (1, True)


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the last one has closed it
        return b""
