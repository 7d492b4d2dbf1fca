"""The operators' commands on a deployed system: up, down, status, backup, check, info, logs, psql."""

from __future__ import annotations

import hashlib
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
from deployment import Deployment, deployment, running, wait_for

from pytest_iopbackup.stack.docker import pause

CONFIRMATION = "I_UNDERSTAND_THIS_WILL_DELETE_ALL_BACKUPS"
PASSWORD = "secrets/database_password"
STATE = "/var/lib/iop-backup"
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

    @pytest.mark.parametrize("mode", [0o700, 0o644, 0o600])
    def test_scripts_that_containers_cannot_read_are_named_and_the_hint_helps(
        self, system: Deployment, mode: int
    ) -> None:
        script = system.directory / "pgbackrest" / "worker.sh"
        script.chmod(mode)
        result = system.control("up")
        assert (result.returncode, "worker.sh" in result.stderr) == (4, True)
        hint = result.stderr.rpartition("HINT: ")[2]
        system.must("bash", "-c", hint)
        assert stat.S_IMODE(script.stat().st_mode) & 0o555 == 0o555

    def test_an_empty_password_is_refused(self, system: Deployment, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        result = system.control("up", DATABASE_PASSWORD_FILE=str(tmp_path / "empty"))
        assert result.returncode == 4
        assert "password is empty" in result.stderr

    @pytest.mark.parametrize("file", ["/proc/nonexistent/password", "/dev/null/password"])
    def test_a_password_that_cannot_be_written_is_one_message(self, system: Deployment, file: str) -> None:
        result = system.control("up", DATABASE_PASSWORD_FILE=file)
        assert result.returncode == 4
        lines = result.stderr.splitlines()
        assert [line.split(": ")[1] for line in lines] == ["ERROR", "HINT"], result.stderr
        assert f"cannot be written: {file}" in lines[0]

    def test_a_password_is_never_written_where_all_could_read_it(self, system: Deployment, tmp_path: Path) -> None:
        file = tmp_path / "password"
        tmp_path.chmod(0o755)
        result = system.control("up", DATABASE_PASSWORD_FILE=str(file))
        assert (result.returncode, list(tmp_path.iterdir())) == (4, [])
        assert f"HINT: chmod 700 '{tmp_path}'" in result.stderr

    @pytest.mark.parametrize("token", ["$$x", r'"a\"b"', "a  b", "'é'", "${HOME}"])
    def test_a_token_that_compose_reads_otherwise_is_refused(self, system: Deployment, token: str) -> None:
        system.configure({"IOP_RESTORE_TOKEN": token})
        try:
            results = [system.control("up"), system.control("restore", token)]
        finally:
            del system.settings["IOP_RESTORE_TOKEN"]
            system.configure({})
        assert results[0].returncode == 4
        assert "IOP_RESTORE_TOKEN has characters" in results[0].stderr
        assert results[1].returncode in {2, 4}  # 2: it is not the word that is in .env, without the quotes
        assert token not in results[0].stderr + results[1].stderr

    def test_while_a_restore_runs_it_says_so(self, system: Deployment) -> None:
        name = f"{system.project}-step"
        step = ("docker", "compose", "run", "--detach", "--no-deps", "--name", name, "--entrypoint")
        system.must(*step, "sleep", "database_wipe", "300")
        try:
            result = system.control("up")
        finally:
            system.must("docker", "rm", "--force", name)
        assert result.returncode == 3
        assert f"a restore is running: container {name}" in result.stderr

    def test_without_an_engine_there_is_one_message(self, system: Deployment) -> None:
        for command in ("up", "down", "status", "backup", "info", "logs", "psql"):
            result = system.control(command, DOCKER_HOST="unix:///nope")
            assert (result.returncode, result.stdout) == (69, ""), command
            assert [line.split(": ")[1] for line in result.stderr.splitlines()] == ["ERROR", "HINT"], result.stderr

    def test_composes_own_error_is_the_last_before_the_verdict(self, system: Deployment) -> None:
        result = system.control("up", PGBACKREST_MEMORY_LIMIT="3m")
        assert result.returncode == 1
        assert "Minimum memory limit" in result.stderr.splitlines()[-3]
        assert system.control("up").returncode == 0


class TestFirstScreen:
    """What ``up`` shows is what is there now, not what was recorded before."""

    def test_all_is_green_at_the_first_start(self) -> None:
        with deployment() as it:
            result = it.control("up")
            assert result.returncode == 0, result.stdout + result.stderr
            assert "WARNING" not in result.stdout + result.stderr
            assert re.search(r"last full +\d{8}-\d{6}F, ", result.stdout), result.stdout
            said = [line for line in result.stderr.splitlines() if line.endswith("Healthy")]
            assert len(said) == len(set(said)) == len(SERVICES)

    def test_a_new_repository_gets_a_backup_at_once(self, system: Deployment) -> None:
        system.must("docker", "compose", "down")
        system.must("docker", "volume", "rm", f"{system.project}_pg_backrest_repo")
        result = system.control("up")
        assert "WARNING: the repository does not know the stanza iop" in result.stderr
        (backup,) = system.backups()
        assert backup["label"] in result.stdout
        # All is well with it, but it is not the one that had the backups: only an operator knows whether that is meant.
        assert result.returncode == 1, result.stdout + result.stderr
        assert "CRITICAL: this is not the repository that was here" in result.stdout
        system.must("docker", "compose", "exec", "-T", "pgbackrest_check", "sh", "-c", f"rm {STATE}/remembered-iop-*")
        wait_for(lambda: system.control("check").returncode == 0, what="the new repository is taken as it is")

    def test_another_stanza_gets_a_backup_at_once(self, system: Deployment) -> None:
        system.configure({"PGBACKREST_STANZA": "another"})
        try:
            result = system.control("up")
            assert result.returncode == 0, result.stdout + result.stderr
            (backup,) = system.backups()
            assert backup["label"] in result.stdout
        finally:
            system.configure({"PGBACKREST_STANZA": "iop"})
            system.control("up")
        # What was archived meanwhile, the first one does not have: its older backups lead into a hole.
        missing = "WAL is missing from the repository"
        wait_for(lambda: missing in system.control("check").stdout, what=missing)
        old = system.backups()[0]  # and what builds on it
        assert system.control("backup", "full").returncode == 0
        system.must("docker", "compose", "exec", "-T", "pgbackrest", "pgbackrest", f"--set={old['label']}", "expire")
        wait_for(lambda: system.control("check").returncode == 0, what="a content check")

    def test_a_setting_that_breaks_pgbackrest_is_seen_at_once(self, system: Deployment) -> None:
        """The backup worker has nothing to do, and the last check before the start was good."""
        system.configure({"PGBACKREST_PROCESS_MAX": "x", "IOP_ARCHIVE_CHECK_TIMEOUT": "5"})
        try:
            result = system.control("up")
        finally:
            system.configure({"PGBACKREST_PROCESS_MAX": "2"})
        assert result.returncode == 1
        assert "NOT HEALTHY" in result.stdout
        assert "'x' is not valid for" in result.stdout
        assert system.control("up").returncode == 0


class TestStatus:
    def test_a_healthy_system_on_one_screen(self, system: Deployment) -> None:
        wait_for(lambda: system.health("pgbackrest_check") == "healthy")
        wait_for(lambda: "waiting segments: 0" in system.control("status").stdout, what="all WAL to be archived")
        started = time.monotonic()
        result = system.control("status")
        assert time.monotonic() - started < 2
        assert result.returncode == 0, result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 80
        assert "HEALTHY" in result.stdout.splitlines()[0]
        assert "\033" not in result.stdout
        for word in (*SERVICES, system.backups()[-1]["label"], "oldest moment", "newest moment", "waiting segments: "):
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
        report.write_text(json.dumps({"verdict": "failed", "finished": "2026-01-15T21:30:00+00:00"}))
        assert system.control("up").returncode == 0  # it judges what it has started
        theirs = {"verdict": "failed", "finished": "2026-01-15T21:30:00+00:00"}
        report.write_text(json.dumps({**theirs, "scenarios": [{"configuration": {"compose.yaml": "0" * 64}}]}))
        result = system.control("status")
        assert (result.returncode, "of another system" in result.stdout) == (0, True), result.stdout
        ours = hashlib.sha256((system.directory / "compose.yaml").read_bytes()).hexdigest()
        report.write_text(json.dumps({**theirs, "scenarios": [{"configuration": {"compose.yaml": ours}}]}))
        assert system.control("status").returncode == 1
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
        pause(system.containers()["database"]["Id"], 60)
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

    def test_a_full_backup_ends_a_restore_that_lacked_only_that(self, system: Deployment) -> None:
        marker, signal = "/var/lib/postgresql/data.restore", "/var/lib/postgresql/data/recovery.signal"
        text = '{"version": 1, "stage": "restored", "target": [], "options": [], "started": "2026-01-15T21:31:00Z", '
        text += '"workflow": true}'
        assert system.exec("pgbackrest", "bash", "-c", f"touch {signal} && echo '{text}' >{marker}").returncode == 0
        try:
            assert system.control("backup", "full").returncode == 0
            assert system.exec("pgbackrest", "test", "-e", marker).returncode == 0  # not before recovery has ended
            assert system.exec("pgbackrest", "rm", signal).returncode == 0
            result = system.control("status")
            assert result.returncode == 1
            assert "the full backup after it is missing" in " ".join(result.stdout.split())
            assert system.control("backup", "diff").returncode == 0
            assert system.exec("pgbackrest", "test", "-e", marker).returncode == 0
            result = system.control("backup", "full")
            assert (result.returncode, "the restore is finished" in result.stderr) == (0, True), result.stderr
            assert system.exec("pgbackrest", "test", "-e", marker).returncode == 1
            assert system.control("status").returncode == 0
        finally:
            system.exec("pgbackrest", "rm", "--force", marker, signal)

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
        socket = Path(os.environ.get("DOCKER_HOST", "/var/run/docker.sock").removeprefix("unix://")).stat()
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
