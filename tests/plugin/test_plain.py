"""A project that has the plugin and asks for nothing of it pays nothing; and ``--iop-list``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from project import Project, all_output
from pytest_iopbackup import resources
from pytest_iopbackup.scenario.loader import load_scenario
from running import Run

HEAVY = ("psycopg", "yaml", "faker", "jsonschema", "cattrs", "tabulate")

# What a run of pytest with the plugin, and with no other that could import these, has imported at its end.
LOOK = f"""\
import json, signal, sys

def test_it():
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

def test_nothing_heavy_is_there(request):
    found = [name for name in {HEAVY!r} if name in sys.modules]
    ours = [name for name in sys.modules if name.startswith("pytest_iopbackup.")]
    print("SEEN", json.dumps([found, sorted(ours)]))
"""


def test_a_plain_run_imports_nothing_heavy_runs_no_scenario_and_writes_nothing(tmp_path: Path, base: Path) -> None:
    (tmp_path / "test_it.py").write_text(LOOK)
    (tmp_path / "full.yaml").write_text((resources.scenarios() / "full.yaml").read_text())
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    arguments = ("pytest", "-s", "-p", "no:cacheprovider", "-p", "pytest_iopbackup.plugin")
    with Run(*arguments, cwd=tmp_path, base=base, environment=alone) as run:
        assert run.end() == 0
    seen = re.search(r"SEEN (.*)", run.output)
    assert seen
    heavy, ours = json.loads(seen[1])
    assert heavy == []
    assert "pytest_iopbackup.plugin" in ours
    assert "pytest_iopbackup.active" not in ours
    assert "2 passed" in run.output
    assert "backup drills" not in run.output
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == ["full.yaml", "test_it.py"]
    assert list(base.iterdir()) == []


def test_yaml_is_collected_only_when_it_was_selected(project: Project) -> None:
    project.pytester.makepyfile(test_it="def test_it(): pass")
    for arguments in ([], ["drills"], ["."]):
        project.run(*arguments).assert_outcomes(passed=0 if arguments == ["drills"] else 1)
    assert project.drills == []
    assert project.reports == []
    assert project.left == []


def test_the_list_shows_every_scenario_and_what_it_proves(project: Project) -> None:
    result = project.run("--iop-list")
    assert result.ret == 0
    for path in resources.scenarios().rglob("*.yaml"):
        assert re.search(rf"^{path.stem} +{re.escape(load_scenario(path).title)}$", result.stdout.str(), re.MULTILINE)
    result.stdout.fnmatch_lines(["mine  *After a mistake, a restore brings back what was there before it"])
    result.stdout.fnmatch_lines(["*tags: restore, pitr"])
    assert "collected" not in result.stdout.str()
    assert project.drills == []


def test_the_list_names_a_malformed_file_and_shows_the_others(project: Project) -> None:
    (project.pytester.path / "drills" / "broken.yaml").write_text("name: broken\ntitle: t\nsteps: [{backup: ful}]\n")
    result = project.run("--iop-list")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "broken.yaml:3: step 1, backup: 'ful' is not allowed here" in result.stdout.str()
    assert "did you mean 'full'?" in result.stdout.str()
    result.stdout.fnmatch_lines(["mine  *"])
    assert "Traceback" not in all_output(result)


def test_the_list_runs_nothing_even_beside_a_selection(project: Project) -> None:
    assert project.run("--iop-list", "--iop-scenario=mine").ret == 0
    assert project.drills == []
    assert project.reports == []
    assert project.left == []


def test_help_tells_of_every_option_and_its_ini_twin(project: Project) -> None:
    text = project.run("--help").stdout.str()
    for name in ("scenario", "stack", "seed", "keep", "report-dir", "timeout-scale", "work-dir", "pg-bin"):
        assert f"--iop-{name}=" in text
        assert f"iop_{name.replace('-', '_')} (" in text
    assert "--iop-list" in text
    assert "--iop-redact" in text
    assert "iop_redact (" in text


def test_the_marker_is_known_without_a_scenario(project: Project) -> None:
    project.pytester.makepyfile("import pytest\n\n@pytest.mark.iop_dataset(users=50)\ndef test_it(): pass")
    project.run("--strict-markers").assert_outcomes(passed=1)
