"""``health.py worker NAME``: what a worker's state file has to say for its container to be healthy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

HEALTH = Path(__file__).parents[2] / "pgbackrest" / "health.py"


def ago(seconds: float) -> str:
    """Return a time as worker.sh writes it."""
    then = datetime.now(timezone.utc) - timedelta(seconds=seconds)
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def state(
    *, doing: str = "waiting", since: float = 5, ended: float = 5, exit_code: int | None = 0, silent: float = 1
) -> str:
    """Return the record of a worker that waits after a good run, changed; an exit code of None is no run yet."""
    last = {"started": ago(ended + 5), "finished": ago(ended), "exit_code": exit_code, "seconds": 5.000}
    record = {
        "version": 1, "worker": "any", "pid": 7, "heartbeat": ago(silent), "state": doing, "since": ago(since),
        "frequency": 60, "runs": 1, "last": None if exit_code is None else last,
    }  # fmt: skip
    return json.dumps(record)


def judge(directory: Path, name: str, text: str | None, **environment: str) -> tuple[int, str]:
    """Return exit code and answer of the health check, which is one line."""
    if text is not None:
        (directory / f"{name}.json").write_text(text)
    if name == "check" and not (directory / "check-status.json").exists():
        (directory / "check-status.json").write_text(json.dumps({"finished": ago(0)}))
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("IOP_", "DATABASE_"))}
    done = subprocess.run(
        (sys.executable, "-B", HEALTH, "worker", name),
        env={**clean, "IOP_STATE_PATH": str(directory), **environment},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert (done.stdout + done.stderr).count("\n") == 1 + done.stderr.count("HINT: ")
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("backup", {}, None),
        ("check", {}, None),
        # Failed: an exit code other than 0; a check's warning, 1, is its own report's business.
        ("backup", {"exit_code": 1}, "the last run ended with exit code 1 at 2"),
        ("backup", {"exit_code": 1, "doing": "running"}, "exit code 1"),
        ("backup", {"exit_code": 3}, None),  # an operator's backup was running
        ("check", {"exit_code": 1}, None),
        ("check", {"exit_code": 2}, "exit code 2"),
        ("check", {"exit_code": 3}, "exit code 3"),
        ("check", {"exit_code": 137}, "exit code 137"),
        # Overdue: the frequency (60) and what a run may take: a backup 100 as set below, a check 90 + 4 * 15.
        ("backup", {"ended": 155}, None),
        ("backup", {"ended": 165}, "one is due every 60 s"),
        ("backup", {"ended": 155, "doing": "running", "since": 95}, None),
        ("check", {"ended": 205}, None),
        ("check", {"ended": 215}, "one is due every 60 s"),
        # The first run, and any that hangs.
        ("backup", {"exit_code": None, "doing": "running", "since": 95}, None),
        ("backup", {"exit_code": None, "doing": "running", "since": 105}, "s, more than 100 s"),
        ("backup", {"doing": "running", "since": 105}, "s, more than 100 s"),
        ("check", {"doing": "running", "since": 145}, None),
        ("check", {"doing": "running", "since": 155}, "s, more than 150 s"),
        ("backup", {"exit_code": None}, "no run has started yet"),
        ("backup", {"since": 3000}, None),
        # Gone, or frozen: whatever it said last.
        ("backup", {"silent": 55}, None),
        ("backup", {"silent": 65}, "no heartbeat for"),
        ("backup", {"silent": 65, "exit_code": None, "doing": "running"}, "no heartbeat for"),
    ],
)
def test_a_worker_is_judged_by_its_record(name: str, change: dict[str, Any], words: str | None, tmp_path: Path) -> None:
    code, answer = judge(tmp_path, name, state(**change), DATABASE_BACKUP_LIMIT="100")
    assert code == (words is not None)
    assert answer == f"worker {name}: ok\n" if words is None else words in answer


@pytest.mark.parametrize(
    ("environment", "change", "code"),
    [
        ({"DATABASE_BACKUP_LIMIT": "10"}, {"ended": 75}, 1),
        ({"DATABASE_BACKUP_LIMIT": "20"}, {"ended": 75}, 0),
        ({"DATABASE_BACKUP_LIMIT": ""}, {"ended": 3600}, 0),
        ({}, {"ended": 3670}, 1),
        ({"IOP_HEARTBEAT": "1"}, {"silent": 8}, 1),
        ({"IOP_HEARTBEAT": "30"}, {"silent": 100}, 0),
    ],
)
def test_limits_come_from_the_environment(
    environment: dict[str, str], change: dict[str, Any], code: int, tmp_path: Path
) -> None:
    assert judge(tmp_path, "backup", state(**change), **environment)[0] == code


@pytest.mark.parametrize(
    ("change", "finished", "words"),
    [
        ({}, 5, None),  # a run from 10 s to 5 s ago
        ({}, 9, None),
        ({}, 60, "has left no report; the newest is of 2"),
        ({}, "", "the report cannot be read: 'finished'"),
        ({}, None, "the report cannot be read"),
        ({"doing": "running", "since": 2}, 1, None),  # the present run's, whose end is to come
        ({"doing": "running", "since": 2}, 60, "has left no report"),
        ({"exit_code": None, "doing": "running"}, None, None),  # the first run
        ({"exit_code": None, "doing": "running"}, 60, None),  # of an earlier worker
        ({"exit_code": 2}, 60, "exit code 2"),
    ],
)
def test_a_run_of_the_checks_has_to_leave_a_report(
    change: dict[str, Any], finished: int | str | None, words: str | None, tmp_path: Path
) -> None:
    report = {"finished": ago(finished)} if isinstance(finished, int) else {}
    (tmp_path / "check-status.json").write_text("" if finished is None else json.dumps(report))
    code, answer = judge(tmp_path, "check", state(**change))
    assert code == (words is not None)
    assert answer == "worker check: ok\n" if words is None else words in answer


def test_a_checks_limit_grows_with_its_own_limits(tmp_path: Path) -> None:
    slow = state(doing="running", since=155)
    assert judge(tmp_path, "check", slow)[0] == 1
    assert judge(tmp_path, "check", slow, IOP_ARCHIVE_CHECK_TIMEOUT="100")[0] == 0
    assert judge(tmp_path, "check", slow, IOP_PROBE_TIMEOUT="18")[0] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file or directory"),
        ("", "does not say how it is"),
        ("{", "does not say how it is"),
        ("[]", "does not say how it is"),
        ("{}", "'heartbeat'"),
        ('{"heartbeat": "yesterday", "since": "yesterday", "last": null}', "'yesterday'"),
    ],
)
def test_a_record_that_cannot_be_read_is_unhealthy(text: str | None, words: str, tmp_path: Path) -> None:
    code, answer = judge(tmp_path, "backup", text)
    assert code == 1
    assert words in answer


def test_a_wrong_limit_is_unhealthy_and_named(tmp_path: Path) -> None:
    code, answer = judge(tmp_path, "backup", state(), DATABASE_BACKUP_LIMIT="1h")
    assert code != 0
    assert "DATABASE_BACKUP_LIMIT is '1h'" in answer
