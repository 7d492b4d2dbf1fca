"""pytest under test, with a drill that needs no server."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# Imported here, so that a pytest inside this one does not import its own copy of each.
from pytest_iopbackup import session
from pytest_iopbackup.cluster import checks
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.record import RunRecord
from pytest_iopbackup.reports import codec
from pytest_iopbackup.stack.local_supply import LocalSupply
from pytest_iopbackup.stack.supply import Order
from running import write_scenario
from scripted import ScriptedDrill


def write_program(folder: Path, name: str, prints: str) -> Path:
    """Write a program that prints a version, as PostgreSQL's and pgBackRest's do."""
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{prints}'\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def programs(base: Path) -> Path:
    """Give a directory with something that looks like PostgreSQL's programs and pgBackRest."""
    folder = base / "bin"
    folder.mkdir(mode=0o755)
    for name in ("postgres", "initdb", "psql", "pg_controldata"):
        write_program(folder, name, f"{name} (PostgreSQL) 15.8 (Debian 15.8-0)")
    write_program(folder, "pgbackrest", "pgBackRest 2.45")
    return folder


@dataclass
class DirectoryOnly:
    """A stack that is nothing but its directory."""

    directory: Path
    kept: bool = False

    def close(self) -> None:
        if not self.kept:
            shutil.rmtree(self.directory)


@dataclass
class Project:
    """A project of somebody who has the plugin, and a pytest inside this one that runs there."""

    pytester: pytest.Pytester
    base: Path
    programs: Path
    script: dict[str, object] = field(default_factory=dict)
    """By scripted verb: facts to give or an exception to raise."""
    drills: list[ScriptedDrill] = field(default_factory=list)
    templates: list[str] = field(default_factory=list)
    """Seed and users of each stack's dataset."""
    trouble: Exception | None = None
    """Raised where a stack would come up."""

    def run(self, *arguments: str, programs: bool = True) -> pytest.RunResult:
        """Run pytest with stacks in a directory of the test's own; ``programs`` says where PostgreSQL's are."""
        # Each of these plugins would import its package anew for each pytest inside this one.
        plugins = ("no:cacheprovider", "no:hypothesispytest", "no:faker")
        places = [f"--iop-work-dir={self.base}"]
        if programs:
            places += [f"--iop-pg-bin={self.programs}", f"--iop-pgbackrest={self.programs}/pgbackrest"]
        return self.pytester.runpytest_inprocess(
            *(f"-p{plugin}" for plugin in plugins), *places, *arguments, no_reraise_ctrlc=True
        )

    def records(self) -> list[RunRecord]:
        """Return what the runs so far have recorded, the oldest first."""
        files = sorted(
            (self.pytester.path / "reports").glob("2*/record.json"), key=lambda file: file.stat().st_mtime_ns
        )
        return [codec.from_json(file.read_text(encoding="utf-8"), RunRecord) for file in files]

    @property
    def reports(self) -> list[str]:
        """What is in the default report directory."""
        folder = self.pytester.path / "reports"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    @property
    def left(self) -> list[str]:
        """What runs have left in their directory."""
        return sorted(path.name for path in self.base.iterdir() if path != self.programs)


def all_output(result: pytest.RunResult) -> str:
    """Return everything that pytest printed."""
    return result.stdout.str() + result.stderr.str()


@pytest.fixture
def project(pytester: pytest.Pytester, base: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a project with a scenario ``mine`` in ``drills``, where stacks are scripted."""
    made = Project(pytester, base, programs)

    def bring(_supply: object, order: Order) -> DirectoryOnly:
        made.templates.append(order.key)
        order.directory.mkdir()
        return DirectoryOnly(order.directory)

    def await_green(*_: object) -> None:
        if made.trouble:
            raise made.trouble

    def make_drill(_stack: object, evidence: Path, *, seed: int, limits: Limits, **_: object) -> ScriptedDrill:
        made.drills.append(ScriptedDrill(evidence, made.script, seed=seed, limits=limits))
        return made.drills[-1]

    monkeypatch.setattr(LocalSupply, "bring", bring)
    monkeypatch.setattr(checks, "await_green", await_green)
    monkeypatch.setattr(session, "Drill", make_drill)
    monkeypatch.delenv("CI", raising=False)
    drills = pytester.mkdir("drills")
    write_scenario(drills, "mine")
    pytester.makeconftest(
        """
        from pathlib import Path

        def pytest_iopbackup_register(registry):
            registry.add_scenarios(Path(__file__).parent / "drills")
        """
    )
    pytester.makeini("[pytest]")
    return made
