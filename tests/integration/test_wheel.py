"""The wheel alone, in somebody else's project, outside the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import pytest_iopbackup
from pytest_iopbackup import resources
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import RunRecord
from pytest_iopbackup.reports.codec import from_json
from pytest_iopbackup.scenario.loader import load_scenario
from running import Run, remains

ROOT = Path(__file__).parents[2]

OURS = ("pytest_iopbackup", "__editable__", "_editable_impl_pytest_iopbackup", "_pytest_iopbackup")

ALONE = {"PYTHONPATH": ""}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.iterdir()
    return wheel


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the Python of a fresh environment with the wheel, and with this environment's other packages."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
    python = folder / "bin" / "python"
    others = folder / "others"
    others.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not entry.name.startswith(OURS):
            (others / entry.name).symlink_to(entry)
    (site_packages,) = folder.glob("lib/python3*/site-packages")
    (site_packages / "others.pth").write_text(f"{others}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", str(wheel)], check=True, timeout=60)
    return python


def below(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_carries_what_a_run_needs_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"pytest_iopbackup-{pytest_iopbackup.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
    package = {f"pytest_iopbackup/{name}" for name in below(ROOT / "src" / "pytest_iopbackup")}
    data = {f"pytest_iopbackup/_data/scenarios/{name}" for name in below(resources.scenarios())}
    data |= {f"pytest_iopbackup/_data/pgbackrest/{name}" for name in below(resources.stack_half())}
    data |= {"pytest_iopbackup/_data/compose.yaml"}
    assert {name for name in names if name.startswith("pytest_iopbackup/")} >= package | data
    assert {name.partition("/")[0] for name in names} == {
        "pytest_iopbackup",
        f"pytest_iopbackup-{pytest_iopbackup.__version__}.dist-info",
    }
    assert not any("__pycache__" in name or name.endswith((".pyc", ".lock")) for name in names)


@pytest.mark.integration
def test_the_installed_wheel_lists_its_scenarios(python: Path, tmp_path: Path, base: Path) -> None:
    with Run("pytest", "--iop-list", cwd=tmp_path, base=base, python=python, environment=ALONE) as run:
        assert run.end() == pytest.ExitCode.OK, run.output
    for path in resources.scenarios().rglob("*.yaml"):
        assert load_scenario(path).title in run.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_the_installed_wheel_proves_a_restore_in_an_empty_project(python: Path, tmp_path: Path, base: Path) -> None:
    where = [str(python), "-c", "import pytest_iopbackup; print(pytest_iopbackup.__file__)"]
    imported = subprocess.run(where, check=True, capture_output=True, text=True, cwd=tmp_path, env=ALONE, timeout=60)
    assert imported.stdout.startswith(str(python.parents[1]))

    with Run("pytest", "--iop-scenario=full", cwd=tmp_path, base=base, python=python, environment=ALONE) as run:
        assert run.end() == pytest.ExitCode.OK, run.output
    record = from_json((tmp_path / "reports" / "latest" / "record.json").read_text(encoding="utf-8"), RunRecord)
    (scenario,) = record.scenarios
    assert (scenario.name, scenario.verdict, len(scenario.steps)) == ("full", Verdict.PASSED, scenario.planned)
    assert scenario.configuration.keys() >= {"pgbackrest.conf", "backup.sh", "check.sh", "worker.sh", "health.py"}
    assert "full [1/7] backup full …" in run.output
    assert f"report: reports/{record.run}/report.md" in run.output
    assert not remains(base)
