"""The stack's own scripts against a real PostgreSQL and a real pgBackRest."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from damage import Damage, failing_after_all, setting
from pgbackrest_system import CHECKS, System, all_but, marked, runs, statuses, system, wait_for

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


# backup.sh


def test_a_new_system_warns_that_there_is_no_backup(grown: Grown) -> None:
    code, checks = grown.first_check
    assert code == 1
    assert statuses(checks) == all_but(backups="warning")
    assert "no valid backups (status 2)" in checks["backups"]["seen"]


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
    path = stack.program("pgbackrest", '[[ $* == *backup* ]] && exec sleep 600\nexec "$real" "$@"')
    with stack.started(stack.scripts / "backup.sh", PATH=path) as (process, mark):
        wait_for(lambda: runs(mark, b"600"))
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
    path = stack.program("pgbackrest", '[[ $* == *backup* ]] && exit 0\nexec "$real" "$@"')
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
    assert statuses(stack.check()[1]) == all_but(backups="critical")
    stack.sql("DROP TABLE damaged")
    stack.must("pgbackrest", "--stanza=iop", f"--set={stack.backups()[-1]['label']}", "expire")
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


@pytest.mark.parametrize(
    ("sabotage", "expected", "guilty", "code", "words"),
    [
        pytest.param(
            repository_gone,
            all_but(
                repository="critical",
                wal_archiving="critical",
                archiver="unknown",
                wal_chain="unknown",
                backups="unknown",
                verify="unknown",
                space="critical",
            ),
            "repository",
            None,
            "missing stanza path (status 1)",
            id="repository-gone",
        ),
        pytest.param(
            repository_read_only,
            all_but(repository="critical"),
            "repository",
            None,
            "no right to write or to read",
            id="repository-read-only",
        ),
        pytest.param(
            server_stopped,
            all_but(postgresql="critical", wal_archiving="critical", configuration="unknown", archiver="unknown"),
            "postgresql",
            None,
            "No such file or directory",
            id="server-stopped",
        ),
        pytest.param(
            setting("archive_command", "/bin/true"),
            all_but(wal_archiving="critical", configuration="critical"),
            "wal-archiving",
            68,
            "archive_command '/bin/true' must contain pgbackrest",
            id="archive-command-true",
        ),
        pytest.param(
            failing_after_all,
            all_but(wal_archiving="critical", configuration="warning", archiver="critical"),
            "archiver",
            None,
            "failed, and no success since",
            id="archive-command-fails-after-all",
        ),
        pytest.param(
            setting("archive_mode", "off", "restart"),
            all_but(wal_archiving="critical", configuration="critical"),
            "configuration",
            None,
            "archive_mode is off",
            id="archive-mode-off",
        ),
        pytest.param(
            setting("max_connections", "50"),
            all_but(configuration="warning"),
            "configuration",
            None,
            "not in force yet: max_connections",
            id="restart-pending",
        ),
    ],
)
def test_each_check_turns_red_for_its_cause_and_green_again(
    stack: System, *, sabotage: Damage, expected: dict[str, str], guilty: str, code: int | None, words: str
) -> None:
    with sabotage(stack) as environment:
        exit_code, checks = stack.check(**environment)
        assert statuses(checks) == expected
        assert checks[guilty]["code"] == code
        assert words in checks[guilty]["seen"]
        assert checks[guilty]["hint"]
        assert exit_code == (2 if "critical" in expected.values() else 1)
    healed, checks = stack.check()
    assert (healed, statuses(checks)) == (0, all_but())


@pytest.mark.parametrize(
    ("environment", "line", "expected", "code", "words"),
    [
        pytest.param(
            {"PGBACKREST_PG1_PATH": "/nope"},
            "",
            all_but(wal_archiving="critical", configuration="critical", space="critical"),
            None,
            "pg1-path /nope",
            id="wrong-pg1-path",
        ),
        pytest.param(
            {"PGBACKREST_CONFIG": "/nope"},
            "",
            all_but(
                repository="critical",
                wal_archiving="critical",
                configuration="critical",
                archiver="unknown",
                wal_chain="unknown",
                backups="unknown",
                verify="unknown",
            ),
            55,
            "unable to open missing file '/nope'",
            id="no-configuration",
        ),
        pytest.param(
            {},
            "repo1-retention-ful=2",
            all_but(configuration="warning"),
            None,
            "configuration file contains invalid option 'repo1-retention-ful'",
            id="unknown-option",
        ),
        pytest.param(
            {},
            "archive-push-queue-max=1GB",
            all_but(configuration="warning"),
            None,
            "archive-push-queue-max may drop WAL",
            id="wal-may-be-dropped",
        ),
        pytest.param(
            {"PGBACKREST_REPO1_RETENTION_FULL": "3"},
            "",
            all_but(configuration="warning"),
            None,
            "WAL is kept for 2 of 3 full backups",
            id="wal-expires-early",
        ),
    ],
)
def test_wrong_settings_turn_the_configuration_red(
    stack: System, *, environment: dict[str, str], line: str, expected: dict[str, str], code: int | None, words: str
) -> None:
    changed = stack.root / "changed.conf"
    shipped = (stack.scripts / "pgbackrest.conf").read_text()
    changed.write_text(shipped.replace("[global]\n", f"[global]\n{line}\n", 1))
    checks = stack.check(**{"PGBACKREST_CONFIG": str(changed), **environment})[1]
    assert statuses(checks) == expected
    assert checks["configuration"]["code"] == code
    assert words in checks["configuration"]["seen"]
    assert checks["configuration"]["hint"]


def test_a_hanging_psql_is_cut_off(stack: System) -> None:
    path = stack.program("psql", "sleep 7301 & sleep 7302")
    started = time.monotonic()
    code, checks = stack.check(PATH=path, IOP_PROBE_TIMEOUT="1")
    assert time.monotonic() - started < 5
    assert code == 3
    assert statuses(checks) == all_but(
        postgresql="unknown", wal_archiving="unknown", configuration="unknown", archiver="unknown"
    )
    assert "no answer from psql" in checks["postgresql"]["seen"]
    assert not runs(stack.mark, b"\x00730")


def test_a_hanging_pgbackrest_check_is_cut_off_and_hides_nothing(stack: System) -> None:
    path = stack.program("pgbackrest", '[[ $* == *check* ]] && sleep 7303\nexec "$real" "$@"')
    started = time.monotonic()
    code, checks = stack.check(PATH=path, IOP_ARCHIVE_CHECK_TIMEOUT="1")
    assert time.monotonic() - started < 4
    assert code == 3
    assert statuses(checks) == all_but(wal_archiving="unknown")
    assert not runs(stack.mark, b"\x00730")


def test_a_frozen_server_is_critical(stack: System) -> None:
    postmaster = int((stack.data / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGSTOP)
    try:
        checks = stack.check(PGCONNECT_TIMEOUT="2")[1]
    finally:
        os.kill(postmaster, signal.SIGCONT)
    assert statuses(checks) == all_but(
        postgresql="critical", wal_archiving="critical", configuration="unknown", archiver="unknown"
    )
    assert "timeout expired" in checks["postgresql"]["seen"]


def test_a_wrong_limit_is_refused_and_leaves_no_old_ok_in_the_status_file(stack: System) -> None:
    assert stack.check()[0] == 0
    refused = stack.run(stack.scripts / "check.sh", IOP_PROBE_TIMEOUT="soon")
    assert refused.returncode == 3
    assert refused.stderr.splitlines()[0] == "ERROR: health.py: IOP_PROBE_TIMEOUT is 'soon'"
    report = json.loads((stack.state / "check-status.json").read_text())
    assert (report["status"], report["checks"][0]["name"]) == ("unknown", "settings")


def test_results_come_even_if_they_cannot_be_saved(stack: System) -> None:
    lost = stack.run(stack.scripts / "check.sh", IOP_STATE_PATH="/proc/nope")
    assert lost.returncode == 3
    assert lost.stdout.count("OK ") == len(CHECKS) - 2  # verify and space have no place there
    assert "cannot write the status file" in lost.stderr


# worker.sh


def job(stack: System, text: str) -> Path:
    """Write a script for the worker, and forget what earlier workers recorded."""
    (stack.state / "job.json").unlink(missing_ok=True)
    script = stack.root / "job.sh"
    script.write_text(f"#!/bin/bash\n{text}\n")
    script.chmod(0o755)
    return script


def recorded(stack: System) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((stack.state / "job.json").read_text())
    except FileNotFoundError:
        state = {"state": "absent", "runs": 0, "last": None}
    return state


def is_in(stack: System, state: str, runs: int) -> Callable[[], bool]:
    return lambda: (recorded(stack)["state"], recorded(stack)["runs"]) == (state, runs)


def end(process: subprocess.Popen[str], mark: str, within: float) -> None:
    """Stop a worker; it has to end well, in time, and leave nothing behind."""
    process.terminate()
    started = time.monotonic()
    assert process.wait(10) == 0
    assert time.monotonic() - started < within
    wait_for(lambda: not marked(mark), seconds=1)


def test_a_worker_goes_on_after_a_failing_run(stack: System) -> None:
    script = job(
        stack, f"env > {stack.state}/seen\n[[ -e {stack.state}/again ]] || {{ touch {stack.state}/again; exit 7; }}"
    )
    worker = stack.scripts / "worker.sh"
    with stack.started(worker, "job", script, "argument", PGBACKREST_FREQUENCY="1") as (process, mark):
        wait_for(is_in(stack, "waiting", 1))
        first = recorded(stack)
        assert first["last"]["exit_code"] == 7
        wait_for(is_in(stack, "waiting", 2))
        second = recorded(stack)
        assert (second["version"], second["worker"], second["pid"]) == (1, "job", process.pid)
        assert (second["frequency"], second["last"]["exit_code"]) == (1, 0)
        assert second["last"]["finished"] <= second["since"] <= second["heartbeat"]
        between = [datetime.fromisoformat(run["last"]["started"].replace("Z", "+00:00")) for run in (first, second)]
        assert 1 <= (between[1] - between[0]).total_seconds() < 1.5
        assert "PGBACKREST_FREQUENCY" not in (stack.state / "seen").read_text()
        end(process, mark, within=1)
    assert recorded(stack)["state"] == "stopped"


def test_an_idle_worker_keeps_its_heartbeat_and_stops_at_once(stack: System) -> None:
    script = job(stack, "exit 0")
    with stack.started(stack.scripts / "worker.sh", "job", script, IOP_HEARTBEAT="1") as (process, mark):
        wait_for(is_in(stack, "waiting", 1))
        first = recorded(stack)
        wait_for(lambda: recorded(stack)["heartbeat"] != first["heartbeat"])
        assert recorded(stack)["since"] == first["since"]
        end(process, mark, within=1)
    assert (recorded(stack)["state"], recorded(stack)["since"]) == ("stopped", recorded(stack)["heartbeat"])


def test_a_running_worker_says_since_when(stack: System) -> None:
    with stack.started(stack.scripts / "worker.sh", "job", job(stack, "sleep 600"), IOP_HEARTBEAT="1") as (
        process,
        mark,
    ):
        wait_for(is_in(stack, "running", 0))
        first = recorded(stack)
        assert first["since"] == first["heartbeat"]
        wait_for(lambda: recorded(stack)["heartbeat"] != first["heartbeat"])
        assert recorded(stack)["since"] == first["since"]
        assert stack.run("python3", "-B", stack.scripts / "health.py", "worker", "backup").returncode == 1
        shutil.copy(stack.state / "job.json", stack.state / "backup.json")
        judged = stack.run("python3", "-B", stack.scripts / "health.py", "worker", "backup")
        assert (judged.returncode, judged.stdout) == (0, "worker backup: ok\n")
        end(process, mark, within=2)
    assert recorded(stack)["last"]["started"] == first["since"]


def test_a_run_is_stopped_with_all_its_processes(stack: System) -> None:
    script = job(stack, "sleep 600 & sleep 600 | cat")
    with stack.started(stack.scripts / "worker.sh", "job", script) as (process, mark):
        wait_for(lambda: len(marked(mark)) >= 5)
        assert recorded(stack)["state"] == "running"
        end(process, mark, within=2)
    assert (recorded(stack)["runs"], recorded(stack)["last"]["exit_code"]) == (1, 128 + signal.SIGTERM)


def test_a_run_that_ignores_the_signal_is_killed(stack: System) -> None:
    script = job(stack, "trap '' TERM\nwhile :; do sleep 600; done")
    with stack.started(stack.scripts / "worker.sh", "job", script, IOP_STOP_TIMEOUT="1") as (process, mark):
        wait_for(lambda: len(marked(mark)) >= 3)
        end(process, mark, within=3)
    assert recorded(stack)["last"]["exit_code"] == 128 + signal.SIGKILL


@pytest.mark.parametrize(("exit_code", "runs"), [(0, 1), (1, 2)])
def test_a_restarted_worker_runs_only_if_the_last_run_failed(stack: System, exit_code: int, runs: int) -> None:
    """Unless it is a check, or of another stanza: see below."""
    worker = (stack.scripts / "worker.sh", "job", job(stack, f"exit {exit_code}"))
    with stack.started(*worker) as (process, mark):
        wait_for(is_in(stack, "waiting", 1))
        end(process, mark, within=1)
    before = recorded(stack)
    with stack.started(*worker, IOP_HEARTBEAT="1") as (process, mark):
        wait_for(lambda: recorded(stack)["heartbeat"] != before["heartbeat"])
        # A regular heartbeat, a second later: whatever the worker does on its start it has done by then.
        first = datetime.fromisoformat(recorded(stack)["heartbeat"][:-1])
        wait_for(lambda: (datetime.fromisoformat(recorded(stack)["heartbeat"][:-1]) - first).total_seconds() >= 1)
        end(process, mark, within=1)
    assert recorded(stack)["runs"] == runs
    assert (recorded(stack)["last"] == before["last"]) == (runs == 1)


def test_a_restarted_check_is_due_at_once(stack: System) -> None:
    """What was seen before the restart says nothing of what is there now."""
    file = stack.state / "check.json"
    file.unlink(missing_ok=True)
    worker = (stack.scripts / "worker.sh", "check", job(stack, "true"))
    for count in (1, 2):
        with stack.started(*worker) as (process, mark):
            ended = f'"state":"waiting",.*"runs":{count},'
            wait_for(lambda words=ended: file.exists() and re.search(words, file.read_text()))  # type: ignore[misc]
            end(process, mark, within=1)
    assert json.loads(file.read_text())["runs"] == 2


def test_a_run_for_another_stanza_does_not_count(stack: System) -> None:
    worker = (stack.scripts / "worker.sh", "job", job(stack, "true"))
    for stanza in ("one", "two"):
        with stack.started(*worker, PGBACKREST_STANZA=stanza) as (process, mark):
            wait_for(is_in(stack, "waiting", 1))
            assert recorded(stack)["stanza"] == stanza
            end(process, mark, within=1)


def test_a_removed_record_makes_a_run_due_at_once(stack: System) -> None:
    worker = (stack.scripts / "worker.sh", "job", job(stack, "true"))
    with stack.started(*worker, IOP_HEARTBEAT="1") as (process, mark):
        wait_for(is_in(stack, "waiting", 1))
        (stack.state / "job.json").unlink()
        wait_for(is_in(stack, "waiting", 2))
        end(process, mark, within=1)


def test_a_record_that_is_removed_during_a_run_makes_another_one_due(stack: System) -> None:
    """It may have begun with what was there before."""
    script = job(stack, f"while [[ -e {stack.state}/hold ]]; do read -t 0.1 <> <(:) || true; done")
    (stack.state / "hold").touch()
    with stack.started(stack.scripts / "worker.sh", "job", script, IOP_HEARTBEAT="1") as (process, mark):
        wait_for(is_in(stack, "running", 0))
        (stack.state / "job.json").unlink()
        (stack.state / "hold").unlink()
        wait_for(is_in(stack, "waiting", 2))
        end(process, mark, within=1)


def test_a_run_that_never_ended_is_repeated(stack: System) -> None:
    script = job(stack, f"[[ ! -e {stack.state}/hang ]] || sleep 600")
    worker = (stack.scripts / "worker.sh", "job", script)
    with stack.started(*worker, PGBACKREST_FREQUENCY="1") as (process, _):
        wait_for(is_in(stack, "waiting", 1))
        (stack.state / "hang").touch()
        wait_for(is_in(stack, "running", 1))
        process.kill()
        process.wait(5)
    (stack.state / "hang").unlink()
    with stack.started(*worker) as (process, mark):
        wait_for(is_in(stack, "waiting", 2))
        end(process, mark, within=1)


def test_a_stopped_check_leaves_no_probe_behind(stack: System) -> None:
    job(stack, "")
    path = stack.program("pgbackrest", '[[ $* == *check* ]] && sleep 600\nexec "$real" "$@"')
    with stack.started(stack.scripts / "worker.sh", "job", stack.scripts / "check.sh", PATH=path) as (process, mark):
        wait_for(lambda: runs(mark, b"600"))
        end(process, mark, within=2)


def test_a_check_that_is_stopped_while_it_starts_probes_leaves_none_behind(stack: System) -> None:
    job(stack, "")
    path = stack.program("pgbackrest", "sleep 600")
    slow = stack.root / "slow"  # the time between the fork and Popen's return, which a busy machine makes long, too
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        "import subprocess, time\n"
        "class Popen(subprocess.Popen):\n"
        "    def __init__(self, *arguments, **options):\n"
        "        super().__init__(*arguments, **options)\n"
        "        time.sleep(0.9)\n"
        "subprocess.Popen = Popen\n"
    )
    arguments = (stack.scripts / "worker.sh", "job", stack.scripts / "check.sh")
    with stack.started(*arguments, PATH=path, PYTHONPATH=str(slow)) as (process, mark):
        wait_for(lambda: runs(mark, b"600"))
        end(process, mark, within=2)


def test_a_stopped_backup_ends_with_pgbackrests_code(stack: System) -> None:
    job(stack, "")
    with stack.started(stack.scripts / "worker.sh", "job", stack.scripts / "backup.sh") as (process, mark):
        running = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgBackRest [backup]%'"
        wait_for(lambda: stack.sql(running) != "0")
        end(process, mark, within=5)
    assert recorded(stack)["last"]["exit_code"] == 63


def test_the_workers_run_the_real_scripts(stack: System) -> None:
    job(stack, "")
    before = len(stack.backups())
    with stack.started(stack.scripts / "worker.sh", "job", stack.scripts / "backup.sh") as (process, mark):
        wait_for(is_in(stack, "waiting", 1), seconds=20)
        end(process, mark, within=1)
    assert recorded(stack)["last"]["exit_code"] == 0
    assert len(stack.backups()) == before + 1


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("job",), {}, "a name and a script are needed"),
        (("../job", "/bin/true"), {}, "'../job' is no name for a worker"),
        (("job", "/nope"), {}, "'/nope' is not there or not executable"),
        (("job", "/bin/true"), {"PGBACKREST_FREQUENCY": "hourly"}, "PGBACKREST_FREQUENCY is 'hourly'"),
        (("job", "/bin/true"), {"PGBACKREST_FREQUENCY": "0"}, "PGBACKREST_FREQUENCY is '0'"),
        (("job", "/bin/true"), {"IOP_STATE_PATH": "/proc/nope"}, "/proc/nope is not writable"),
    ],
)
def test_a_worker_refuses_wrong_settings(
    stack: System, arguments: tuple[str, ...], environment: dict[str, str], words: str
) -> None:
    refused = stack.run(stack.scripts / "worker.sh", *arguments, **environment)
    assert refused.returncode == 2
    assert words in refused.stderr
    assert "HINT: " in refused.stderr
