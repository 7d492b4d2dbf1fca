"""Sentences of docs/system.md on backups, checks and retention that need a measurement or a history of their own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from pgbackrest_system import System, system, wait_for
from restore_system import TOKEN

from control import ROOT, shell
from pytest_iopbackup.drill import Drill

pytestmark = pytest.mark.integration


@pytest.fixture
def fresh() -> Iterator[System]:
    """Give a new system without backups."""
    with system() as new:
        yield new


@dataclass(frozen=True)
class Cost:
    """What a backup took: seconds by the clock, which other work on the machine lengthens, and of processor time."""

    seconds: float
    worked: float


def backup(stack: System, kind: str, **environment: str) -> tuple[str, Cost]:
    """Take a backup; return its label and what it took."""
    began, before = time.monotonic(), worked()
    stack.must(stack.scripts / "backup.sh", kind, **environment)
    return stack.backups()[-1]["label"], Cost(time.monotonic() - began, worked() - before)


def worked() -> float:
    """Return the processor time of all programs that were run so far, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def restorable(stack: System, *target: str) -> tuple[int, str]:
    """Ask whether the target can be restored; return the exit code and what was said."""
    planned = stack.run(stack.scripts / "restore.sh", "plan", TOKEN, *target)
    return planned.returncode, planned.stderr


# Differential backups


def test_a_differential_backup_is_smaller_and_quicker_and_builds_on_the_full_one(fresh: System) -> None:
    """Three full ones and six others, with 250 MB that hardly compress and 1 percent of them changed in between.

    The quickest of each are compared: pgBackRest waits for the next second in each, and the machine may be busy.
    """
    fresh.sql(
        "CREATE TABLE settled AS SELECT n, md5(n::text) || md5((-n)::text) AS t FROM generate_series(1, 2500000) n"
    )
    fresh.sql("CREATE TABLE busy AS SELECT n FROM generate_series(1, 25000) n")
    costs: dict[str, list[Cost]] = {"full": [], "diff": []}
    for _ in range(3):
        full, taken = backup(fresh, "full")
        costs["full"].append(taken)
        previous = ""
        for _ in range(2):
            fresh.sql("UPDATE busy SET n = n + 1")
            label, taken = backup(fresh, "diff")
            costs["diff"].append(taken)
            found = {entry["label"]: entry for entry in fresh.backups()}
            whole, change = (found[name]["info"]["repository"]["delta"] for name in (full, label))
            assert change < whole / 10
            # Two of them: the second builds on the full backup as well, and does not need the first.
            assert found[label]["prior"] == full
            assert found[label]["reference"] == [full]
            assert previous not in found[label]["reference"]
            previous = label
    assert min(cost.seconds for cost in costs["diff"]) < min(cost.seconds for cost in costs["full"]) * 0.75, costs
    assert max(cost.worked for cost in costs["diff"]) < min(cost.worked for cost in costs["full"]) / 2, costs


# Checks


def files(stack: System) -> dict[str, str]:
    """Return the checksum of each file that holds tables, indexes, catalogs or transactions' outcomes."""
    places = [path for name in ("base", "global", "pg_xact", "pg_multixact") for path in (stack.data / name).rglob("*")]
    passing = {"pg_control", "pg_internal.init"}  # the place of the last checkpoint; a cache
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in places
        if path.is_file() and path.name not in passing
    }


def test_a_check_modifies_no_data_and_no_backup(fresh: System) -> None:
    """It leaves a restore point and a segment of WAL behind, and nothing else; no transaction writes a row."""
    fresh.sql("ALTER SYSTEM SET autovacuum = off")
    fresh.postgres("reload")
    fresh.sql("CREATE TABLE data AS SELECT n, md5(n::text) AS t FROM generate_series(1, 10000) n")
    backup(fresh, "full")
    fresh.sql("VACUUM")
    fresh.sql("CHECKPOINT")
    before = files(fresh), fresh.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())"), fresh.backups()
    kept = fresh.inventory()
    assert len(before[0]) > 300
    for _ in range(3):
        assert fresh.check()[0] == 0
    fresh.sql("CHECKPOINT")
    assert (files(fresh), fresh.sql("SELECT pg_snapshot_xmax(pg_current_snapshot())"), fresh.backups()) == before
    after = fresh.inventory()
    assert {name: after.get(name) for name in kept} == kept
    assert all(name.startswith("archive/iop/") for name in after.keys() - kept.keys())


# Retention


def passed(moment: float) -> bool:
    """Tell whether a moment, in seconds since 1970, has passed."""
    return time.time() > moment


def archived(stack: System) -> set[str]:
    """Return the names of the archived WAL segments."""
    return {path.name[:24] for path in (stack.repository / "archive" / "iop").rglob("0*-*")}


def test_what_is_obsolete_goes_and_every_moment_since_the_oldest_kept_backup_stays_recoverable(fresh: System) -> None:
    limits = {
        "PGBACKREST_REPO1_RETENTION_FULL": "2",
        "PGBACKREST_REPO1_RETENTION_DIFF": "2",  # pgBackRest counts a full backup as one of them
        "PGBACKREST_REPO1_RETENTION_ARCHIVE": "2",
    }
    fresh.sql("CREATE TABLE t (n int)")
    moments = []
    for kind in ("full", "diff", "full", "diff", "diff", "full"):
        backup(fresh, kind, **limits)
        fresh.sql("INSERT INTO t VALUES (1)")
        ended = fresh.backups()[-1]["timestamp"]["stop"]  # in whole seconds, hence taken for a second later
        wait_for(partial(passed, ended + 1))
        moments.append(fresh.sql("SELECT clock_timestamp()"))
        fresh.sql("INSERT INTO t VALUES (2); SELECT pg_switch_wal()")
    kept = fresh.backups()
    assert [entry["type"] for entry in kept] == ["full", "diff", "full"]
    oldest = kept[0]["archive"]["start"]
    wait_for(lambda: min(archived(fresh)) == oldest)
    segments = sorted(int(name[8:16] + name[22:], 16) for name in archived(fresh))
    assert segments == list(range(segments[0], segments[-1] + 1))
    assert "status: ok" in fresh.must("pgbackrest", "--stanza=iop", "verify", "--output=text", "--verbose")
    for moment in moments[2:]:
        code, said = restorable(fresh, "time", moment)
        assert code == 0, said
    for entry in kept:
        assert restorable(fresh, "set", entry["label"])[0] == 0
    for moment in moments[:2]:
        code, said = restorable(fresh, "time", moment)
        assert (code, "the oldest recoverable moment is" in said) == (4, True)


def test_the_default_policy_keeps_what_it_says(fresh: System) -> None:
    """Full backups and WAL are seen to go; for 25 differential ones pgBackRest's own reading has to do."""
    options = fresh.must("pgbackrest", "--stanza=iop", "help", "backup")
    said = dict(re.findall(r"--repo-retention-(full|diff|archive) +[^\[]*\[current=(\d+)", options))
    assert set(said) == {"full", "diff", "archive"}
    for _ in range(int(said["full"]) + 1):
        label, _ = backup(fresh, "full")
    kept = fresh.backups()
    assert (len(kept), kept[-1]["label"]) == (int(said["full"]), label)
    first = kept[-int(said["archive"])]["archive"]["start"]
    wait_for(lambda: min(archived(fresh)) == first)


@pytest.mark.parametrize(("full", "diff"), [(1, 1), (3, 2)])
def test_retention_follows_its_variables(fresh: System, full: int, diff: int) -> None:
    limits = {
        "PGBACKREST_REPO1_RETENTION_FULL": str(full),
        "PGBACKREST_REPO1_RETENTION_DIFF": str(diff),
        "PGBACKREST_REPO1_RETENTION_ARCHIVE": str(full),
    }
    for kind in ["full"] * (full + 1) + ["diff"] * (diff + 1):
        backup(fresh, kind, **limits)
    assert [entry["type"] for entry in fresh.backups()] == ["full"] * full + ["diff"] * diff


# Restores


def test_a_full_restore_takes_the_newest_backup_that_is_valid(fresh: System) -> None:
    valid, _ = backup(fresh, "full")
    assert f"backup set      {valid}" in restorable(fresh)[1]
    fresh.sql("CREATE TABLE damaged AS SELECT generate_series(1, 1000) AS n")
    fresh.sql("CHECKPOINT")
    with (fresh.data / fresh.sql("SELECT pg_relation_filepath('damaged')")).open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 64)
    assert fresh.run(fresh.scripts / "backup.sh", "full").returncode == 5
    newest = fresh.backups()[-1]
    assert (newest["error"], newest["label"] > valid) == (True, True)
    code, said = restorable(fresh)
    assert (code, f"backup set      {valid}" in said) == (0, True), said


KINDS = [
    [],
    ["time", "2026-01-15 21:30:00"],
    ["lsn", "0/3000000"],
    ["xid", "742"],
    ["name", "before"],
    ["set", "20260115-213000F"],
]


@pytest.mark.parametrize("target", KINDS, ids=lambda target: target[0] if target else "latest")
def test_every_kind_of_restore_asks_for_the_token(target: list[str], tmp_path: Path) -> None:
    """Docker stands for all that could be touched: without the token it is not even called."""
    called = tmp_path / "called"
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/bash\necho "$*" >>{called}\nexit 1\n')
    docker.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    control = [str(ROOT / "control.sh"), "restore"]
    for arguments in (target, ["", *target], [TOKEN.lower(), *target], [*target, TOKEN], ["--yes", *target]):
        if arguments != [TOKEN]:
            blocked = subprocess.run(
                [*control, *arguments], env=environment, capture_output=True, check=False, timeout=30
            )
            assert (blocked.returncode, called.exists()) == (2, False), arguments
    subprocess.run([*control, TOKEN, *target], env=environment, capture_output=True, check=False, timeout=30)
    assert called.exists()


def test_a_restore_is_tested_by_one_command(tmp_path: Path) -> None:
    """``control.sh drill`` without its set-up, which these tests have behind them; its exit code is the verdict."""
    drill = 'setup_all() { :; }; python=$1; shift; command_drill "$@"'
    options = ("--iop-stack=local", "--iop-scenario=full", f"--iop-report-dir={tmp_path}", "-p", "no:cacheprovider")
    argv = shell(drill, sys.executable, *options)
    result = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "expect the rows of before-loss" in result.stdout
    assert json.loads((tmp_path / "latest" / "record.json").read_text())["verdict"] == "passed"


@pytest.mark.iop_dataset(users=200)
@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("DELETE FROM identity.membership", id="accidental-deletion"),
        pytest.param(
            "UPDATE identity.users SET given_name = upper(id::text), version = version + 7", id="application-error"
        ),
        pytest.param(
            "ALTER TABLE identity.users DROP COLUMN given_name CASCADE; DROP TABLE identity.sessions CASCADE",
            id="failed-deployment",
        ),
    ],
)
def test_a_point_in_time_recovery_undoes(iop_stack: Drill, statement: str) -> None:
    iop_stack.write(20)
    iop_stack.mark("before")
    with iop_stack.connect() as connection:
        connection.execute(statement.encode())
    with pytest.raises(AssertionError, match="failed: "):
        iop_stack.expect("before")
    iop_stack.restore("before", by="time")
    iop_stack.expect("before")
