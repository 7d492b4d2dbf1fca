"""The scenarios on Docker Compose: real runs of pytest, side by side, and what they leave."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_iopbackup import resources
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import RunRecord, ScenarioRecord
from pytest_iopbackup.reports import codec
from pytest_iopbackup.stack import docker
from pytest_iopbackup.stack.base import TOKEN
from running import Run, write_scenario

pytestmark = pytest.mark.integration

OTHER_NAMES = {
    "pgbackrest_backup": "worker_of_backups",
    "pgbackrest_check": "worker_of_checks",
    "pgbackrest_restore": "restorer",
    "database_wipe": "wiper",
    "database_data": "cluster",
    "pg_backrest_repo": "repository",
    "DATABASE_BACKUP_FREQUENCY": "BACKUP_EVERY",
}
MAPPING = """\
services: {backup: worker_of_backups, check: worker_of_checks, restore: restorer, wipe: wiper}
volumes: {data: cluster, repository: repository}
variables: {DATABASE_BACKUP_FREQUENCY: BACKUP_EVERY}
"""
NO_TOKEN = """\
name: tokens
title: Wrong confirmation tokens are blocked
dataset: {users: 20}
steps:
  - mark: here
  - refuse: wrong-tokens
  - expect: {rows: here}
"""


def left(run: str = "") -> list[str]:
    """Return what Docker has of the projects of runs."""
    found = []
    for kind, options in (("container", ["--all"]), ("volume", []), ("network", [])):
        argv = ["docker", kind, "ls", *options, "--filter", "label=com.docker.compose.project"]
        label = '{{.Label "com.docker.compose.project"}}'
        printed = subprocess.run([*argv, "--format", label], check=True, capture_output=True, text=True).stdout
        found += [f"{kind} of {name}" for name in printed.split() if name.startswith(f"iop-{run}")]
    return found


def records(folder: Path) -> dict[str, ScenarioRecord]:
    """Return what the newest run has recorded, by scenario."""
    record = codec.from_json((folder / "latest" / "record.json").read_text(), RunRecord)
    return {scenario.name: scenario for scenario in record.scenarios}


def run_pytest(tmp_path: Path, base: Path, *arguments: str, limit: float = 400) -> tuple[int, str]:
    """Run pytest to its end."""
    options = ("-p", "no:cacheprovider", f"--iop-report-dir={tmp_path}/out", *arguments)
    with Run("pytest", *options, cwd=tmp_path, base=base) as run:
        return run.end(limit), run.output


LONG = {"crash", "marks", "sweep", "targets"}
"""Minutes each, for they restore many times."""


def test_every_scenario_passes_on_compose_unchanged_and_two_stand_side_by_side(tmp_path: Path, base: Path) -> None:
    names = {path.stem for path in resources.scenarios().glob("*.yaml")} - LONG
    wanted = [f"--iop-scenario={name}" for name in sorted(names)]
    code, output = run_pytest(tmp_path, base, "-n", "2", "--iop-stack=compose", *wanted)
    assert code == pytest.ExitCode.OK, output
    found = records(tmp_path / "out")
    assert set(found) == names >= {"full", "differential", "pitr", "operations"}
    for scenario in found.values():
        assert (scenario.verdict, scenario.stack) == (Verdict.PASSED, "compose")
        assert len(scenario.steps) == scenario.planned
        assert {"docker", "compose", "postgresql", "pgbackrest"} <= set(scenario.versions)
        assert {"compose.yaml", "backup.sh", "pgbackrest.conf"} <= set(scenario.configuration)
    run = re.search(r"report: .*-([0-9a-f]{8})/report.md", output)
    assert run is not None
    assert left(run[1]) == []
    assert list(base.glob("iop-*")) == []

    steps = {step.verb: step for step in found["operations"].steps}
    schedule = steps["schedule"].schedule
    assert schedule is not None
    assert [backup.type for backup in schedule.taken].count("full") >= 3
    assert schedule.expired
    assert len(steps["restore-kept"].restores) == len(schedule.kept)
    blocked = steps["refuse"].operation
    assert blocked is not None
    assert blocked.attempts > 20
    controlled = [step.operation for step in found["operations"].steps if step.verb == "control"]
    assert ["reached: " in facts.said for facts in controlled if facts] == [True, True]


def test_a_compose_file_of_ones_own_with_other_names_is_drilled_on_in_place(tmp_path: Path, base: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("image", "pgbackrest"):
        shutil.copytree(resources.deployed() / name, theirs / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (resources.deployed() / "compose.yaml").read_text()
    for ours, other in OTHER_NAMES.items():
        text = re.sub(rf"\b{ours}\b", other, text)
    (theirs / "stack.yaml").write_text(text)
    (theirs / "mapping.yaml").write_text(MAPPING)
    write_scenario(tmp_path, "mine")
    before = sorted(str(path) for path in theirs.rglob("*"))
    code, output = run_pytest(
        tmp_path, base, "--iop-compose-file=theirs/stack.yaml", "--iop-compose-map=theirs/mapping.yaml",
        "--iop-scenario=./mine.yaml",
    )  # fmt: skip
    assert code == pytest.ExitCode.OK, output
    scenario = records(tmp_path / "out")["mine"]
    assert scenario.stack == "compose"
    assert "stack.yaml" in scenario.configuration
    assert sorted(str(path) for path in theirs.rglob("*")) == before
    assert list(base.glob("iop-*")) == []


def test_a_system_that_takes_any_token_is_found_out(tmp_path: Path, base: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in resources.DEPLOYED:
        source = resources.deployed() / name
        if source.is_dir():
            shutil.copytree(source, theirs / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, theirs / name)
    for script, check in (
        ("control/restore.sh", '[ "${1:-}" = "$token" ] ||'),
        ("pgbackrest/restore.sh", f'[ "$token" = "${{IOP_RESTORE_TOKEN:-{TOKEN}}}" ] ||'),
    ):  # fmt: skip
        text = (theirs / script).read_text()
        assert text.count(check) == 1
        (theirs / script).write_text(text.replace(check, "true ||"))
    (tmp_path / "tokens.yaml").write_text(NO_TOKEN)
    code, output = run_pytest(
        tmp_path, base, "--iop-compose-file=theirs/compose.yaml", "--iop-scenario=./tokens.yaml"
    )  # fmt: skip
    assert code == pytest.ExitCode.TESTS_FAILED, output
    scenario = records(tmp_path / "out")["tokens"]
    assert scenario.verdict is Verdict.FAILED
    assert "was not blocked" in str(scenario.reason)
    assert list(base.glob("iop-*")) == []


def test_a_kept_stack_can_be_looked_at_and_removed_as_its_note_says(tmp_path: Path, base: Path) -> None:
    write_scenario(tmp_path, "mine")
    code, output = run_pytest(
        tmp_path, base, "--iop-stack=compose", "--iop-keep=always", "--iop-scenario=./mine.yaml"
    )  # fmt: skip
    assert code == pytest.ExitCode.OK, output
    (kept,) = base.glob("iop-*/s-*")
    commands = re.findall(r"^    (docker compose .*)$", (kept / "KEPT").read_text(), re.MULTILINE)
    name = (kept / "compose-project").read_text()
    try:
        assert len(left(name.removeprefix("iop-"))) > 5
        start, look, down = (command.split() for command in commands)
        subprocess.run(start, check=True, capture_output=True, timeout=60)
        assert look[-2:] == ["database", "psql"]
        argv = [*look[:-2], "-T", *look[-2:], "--dbname=iop", "-Atc", "SELECT count(*) FROM identity.users"]

        def users() -> str:
            return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60).stdout.strip()

        wait_until(lambda: users().isdigit(), limit=60, what="the kept database", pause=0.5)
        subprocess.run(down, check=True, capture_output=True, timeout=60)
        assert left(name.removeprefix("iop-")) == []
    finally:
        (kept / "KEPT").unlink()
        docker.remove_projects(kept)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "SIGKILL"])
def test_nothing_stays_of_a_run_that_was_interrupted_or_of_one_killed_after_the_next_sweep(
    tmp_path: Path, base: Path, number: signal.Signals
) -> None:
    write_scenario(tmp_path, "mine")
    arguments = ("--iop-stack=compose", "--iop-scenario=./mine.yaml", f"--iop-report-dir={tmp_path}/out")
    with Run("pytest", "-p", "no:cacheprovider", *arguments, cwd=tmp_path, base=base) as run:
        wait_until(lambda: any(base.glob("iop-*/s-*")), limit=60, what="the stack's directory")
        (directory,) = base.glob("iop-*")
        name = directory.name.removeprefix("iop-")
        wait_until(lambda: len(left(name)) > 5, limit=60, what="containers of the run", pause=0.2)
        run.send(number)
        code = run.end(limit=60)
    if number is signal.SIGKILL:
        assert left(name) != []
        sweep = [sys.executable, "-m", "pytest_iopbackup", "sweep", str(base)]
        done = subprocess.run(sweep, check=True, capture_output=True, text=True, env=dict(os.environ), timeout=60)
        assert directory.name in done.stderr
    else:
        assert code == pytest.ExitCode.INTERRUPTED
    wait_until(lambda: left(name) == [], limit=20, what="nothing to be left", pause=0.2)
    assert list(base.glob("iop-*")) == []
