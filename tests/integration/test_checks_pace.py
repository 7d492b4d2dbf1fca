"""The checks of verify, of the workers and of the settings, and what hangs: for real causes, each red, then green."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from damage import flipped, rewritten, setting, write_wal
from pgbackrest_system import System, all_but, marked, runs, statuses, system, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stack() -> Iterator[System]:
    with system() as new:
        for kind in ("full", "diff"):
            new.must(new.scripts / "backup.sh", kind)
            write_wal(new, 2)
        wait_for(lambda: "the last run ended" in new.check()[1]["verify"]["seen"], seconds=30)
        yield new


def backup_file(stack: System) -> Path:
    """Choose a file of the full backup that the differential one builds on."""
    return stack.repository / "backup" / "iop" / str(stack.backups()[0]["label"]) / "bundle" / "1"


def own_segment(stack: System) -> Path:
    (path,) = stack.repository.rglob(f"{stack.backups()[0]['archive']['stop']}-*")
    return path


@pytest.mark.parametrize("damaged", [backup_file, own_segment])
def test_verify_finds_damage_that_left_size_and_time_alone(stack: System, damaged: Any) -> None:
    often = {"IOP_VERIFY_FREQUENCY": "1", "IOP_PROBE_TIMEOUT": "2"}
    with rewritten(damaged(stack), flipped, unnoticed=True):
        wait_for(lambda: stack.check(**often)[1]["verify"]["status"] == "critical", seconds=30)
        found = stack.check(**often)[1]
        # 2.45 may hang there, its two processes waiting for each other.
        assert found["verify"]["seen"].startswith(("verify finds damage: the repository", "verify hangs: no progress"))
        assert found["verify"]["hint"]
        assert found["backups"]["status"] == "ok"
    wait_for(lambda: statuses(stack.check()[1]) == all_but(), seconds=15)


def test_a_run_of_verify_that_hangs_is_reported_and_nothing_waits_for_it(stack: System) -> None:
    path = stack.program("pgbackrest", '[[ $1 == verify ]] && exec sleep 7304\nexec "$real" "$@"')
    hanging = {"PATH": path, "IOP_VERIFY_FREQUENCY": "1", "IOP_PROBE_TIMEOUT": "1"}
    time.sleep(1.1)  # the last run is older than its period
    started = time.monotonic()
    assert stack.check(**hanging)[1]["verify"]["status"] == "ok"
    assert time.monotonic() - started < 10
    wait_for(lambda: "verify hangs: no progress for 4 s" in stack.check(**hanging)[1]["verify"]["seen"], seconds=30)
    wait_for(lambda: statuses(stack.check()[1]) == all_but(), seconds=15)
    wait_for(lambda: not runs(stack.mark, b"7304"))


def test_verify_ends_with_the_worker_that_started_it(stack: System) -> None:
    path = stack.program("pgbackrest", '[[ $1 == verify ]] && exec sleep 7305\nexec "$real" "$@"')
    time.sleep(1.1)  # likewise
    worker = (stack.scripts / "worker.sh", "check", stack.scripts / "check.sh")
    with stack.started(*worker, PATH=path, IOP_VERIFY_FREQUENCY="1") as (process, mark):
        wait_for(lambda: runs(mark, b"7305"), seconds=20)
        process.terminate()
        assert process.wait(10) == 0
        wait_for(lambda: not marked(mark), seconds=5)
    (stack.state / "check.json").unlink()


def test_whatever_hangs_every_check_ends_in_time(stack: System) -> None:
    path = stack.program("pgbackrest", "exec sleep 7306")
    for name in ("psql", "df", "find"):
        path = stack.program(name, "trap '' TERM; sleep 7306 & wait").split(":")[0] + f":{path}"
    started = time.monotonic()
    code, checks = stack.check(PATH=path, IOP_PROBE_TIMEOUT="1", IOP_ARCHIVE_CHECK_TIMEOUT="1")
    assert time.monotonic() - started < 8
    assert code == 3
    assert {name for name, status in statuses(checks).items() if status == "ok"} <= {"workers"}, checks
    wait_for(lambda: not runs(stack.mark, b"7306"))
    wait_for(lambda: statuses(stack.check()[1]) == all_but(), seconds=15)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("archive_timeout", "0", "archive_timeout is 0"),
        ("archive_timeout", "3600", "archive_timeout is 3600, not 60"),
        (
            "archive_command",
            "pgbackrest --stanza=iop --repo1-path=/tmp/elsewhere archive-push %p",
            "its repo1-path is /tmp/elsewhere, backups use",
        ),
        (
            "archive_command",
            "PGBACKREST_CONFIG=/etc/other.conf pgbackrest --stanza=iop archive-push %p",
            "its config is /etc/other.conf, backups use",
        ),
        ("archive_command", "pgbackrest --stanza=other archive-push %p", "its stanza is other, backups use iop"),
    ],
)
def test_settings_of_the_server_turn_the_configuration_red(stack: System, name: str, value: str, words: str) -> None:
    with setting(name, value)(stack):
        found = stack.check(PGBACKREST_ARCHIVE_TIMEOUT="2")[1]["configuration"]
        assert found["status"] in {"warning", "critical"}
        assert words in found["seen"]
        assert found["hint"]
    wait_for(lambda: statuses(stack.check()[1]) == all_but(), seconds=75)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"PGBACKREST_REPO1_RETENTION_FULL": "1", "PGBACKREST_REPO1_RETENTION_ARCHIVE": "1"}, "reach 0 s back"),
        ({"IOP_RECOVERY_WINDOW": "864000"}, "lets a restore reach 604800 s back, less than 864000"),
        ({"PGBACKREST_EXPIRE_AUTO": "n"}, "expire-auto=n"),
        ({"PGBACKREST_ARCHIVE_CHECK": "n"}, "archive-check=n"),
    ],
)
def test_settings_of_pgbackrest_turn_the_configuration_yellow(
    stack: System, environment: dict[str, str], words: str
) -> None:
    found = stack.check(**environment)[1]["configuration"]
    assert (found["status"], words in found["seen"]) == ("warning", True), found


def test_the_backup_worker_is_watched(stack: System) -> None:
    script = stack.root / "job.sh"
    script.write_text(f"#!/bin/bash\n[[ ! -e {stack.state}/hang ]] || sleep 600\nexit $(<{stack.state}/code)\n")
    script.chmod(0o755)
    (stack.state / "code").write_text("0")

    def found(**environment: str) -> tuple[str, str]:
        answer = stack.check(IOP_HEARTBEAT="1", DATABASE_BACKUP_LIMIT="3600", **environment)[1]["workers"]
        return answer["status"], answer["seen"]

    def runs() -> int:
        return int(json.loads((stack.state / "backup.json").read_text())["runs"])

    assert found()[0] == "ok"  # none, and none is expected
    expected = {"DATABASE_BACKUP_FREQUENCY": "1"}
    assert found(**expected)[0] == "ok"  # it may be about to start
    wait_for(lambda: found(**expected)[0] == "critical", seconds=15)
    worker = (stack.scripts / "worker.sh", "backup", script)
    with stack.started(*worker, PGBACKREST_FREQUENCY="1", IOP_HEARTBEAT="1") as (process, _):
        wait_for(lambda: (stack.state / "backup.json").exists() and runs() > 0)
        assert found(**expected)[0] == "ok"
        (stack.state / "code").write_text("56")
        wait_for(lambda: "the last run ended with exit code 56" in found()[1], seconds=15)
        (stack.state / "code").write_text("0")
        wait_for(lambda: found()[0] == "ok")
        (stack.state / "hang").touch()

        def late() -> bool:
            """Whether a run that takes longer than a backup may take here is reported."""
            answer = stack.check(IOP_HEARTBEAT="1", DATABASE_BACKUP_LIMIT="1")[1]["workers"]
            return answer["status"] == "critical" and "the run in progress has taken" in answer["seen"]

        wait_for(late)
        process.kill()
        process.wait(5)
    wait_for(lambda: "the worker is gone or hangs" in found()[1], seconds=20)
    for name in ("backup.json", "hang", "code"):
        (stack.state / name).unlink()
    assert statuses(stack.check()[1]) == all_but()


def test_old_backups_are_reported(stack: System) -> None:
    time.sleep(2.1)  # the age is what is tested
    old = stack.check(IOP_FULL_BACKUP_AGE="1", DATABASE_BACKUP_LIMIT="1")[1]["backups"]
    assert (old["status"], "the last full backup" in old["seen"]) == ("critical", True)
    late = stack.check(DATABASE_BACKUP_FREQUENCY="1", DATABASE_BACKUP_LIMIT="1")[1]["backups"]
    assert (late["status"], "the last backup" in late["seen"]) == ("critical", True)
    assert statuses(stack.check()[1]) == all_but()


def test_room_is_judged_by_percent_and_by_amount(stack: System) -> None:
    """The machine's own file system, with other limits."""
    tight = {"IOP_SPACE_WARNING": "100", "IOP_SPACE_ENOUGH": "999999"}
    found = stack.check(**tight)[1]["space"]
    assert (found["status"], "bytes are free" in found["seen"]) == ("warning", True)
    assert stack.check(**tight, IOP_SPACE_CRITICAL="100")[1]["space"]["status"] == "critical"
    assert stack.check(IOP_SPACE_WARNING="100", IOP_SPACE_ENOUGH="1")[1]["space"]["status"] == "ok"
    assert statuses(stack.check()[1]) == all_but()
