"""What pgBackRest says of its options is asked once, and again as soon as anything changes that it depends on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_iopbackup import resources
from pytest_iopbackup.stack.binaries import find_binaries

ASK = """
import sys
sys.path.insert(0, sys.argv[1])
import helps
print(helps.options_of("backup").get("repo-path"), helps.HELPS["backup"]().returncode)
"""
CONFIGURATION = "[global]\nrepo1-path=/one\n[iop]\npg1-path=/data\n"

Ask = Callable[[], tuple[str, int]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a place with a configuration, and a program that counts how often it hands on to pgBackRest."""
    for name in ("bin", "conf.d"):
        (tmp_path / name).mkdir()
    (tmp_path / "pgbackrest.conf").write_text(CONFIGURATION)
    counting = f'#!/bin/sh\necho x >>"{tmp_path}/asked"\nexec "{find_binaries().pgbackrest}" "$@"\n'
    (tmp_path / "bin" / "pgbackrest").write_text(counting)
    (tmp_path / "bin" / "pgbackrest").chmod(0o755)
    return tmp_path


def ask(place: Path, **variables: str) -> tuple[str, int]:
    """Return the repository's path as the checks find it, and how often pgBackRest was asked for it."""
    counted = place / "asked"
    counted.unlink(missing_ok=True)
    environment = {
        "PATH": f"{place}/bin:{os.environ['PATH']}",
        "IOP_STATE_PATH": str(place / "state"),
        "PGBACKREST_CONFIG": str(place / "pgbackrest.conf"),
        "PGBACKREST_CONFIG_INCLUDE_PATH": str(place / "conf.d"),
        **variables,
    }
    argv = [sys.executable, "-B", "-c", ASK, str(resources.stack_half())]
    printed = subprocess.run(argv, env=environment, check=True, capture_output=True, text=True).stdout
    return printed.strip(), len(counted.read_text().split()) if counted.exists() else 0


def test_it_is_asked_once(place: Path) -> None:
    assert ask(place) == ("/one 0", 1)
    assert ask(place) == ("/one 0", 0)


def in_place(place: Path) -> dict[str, str]:
    """Write other words of the same length, and set the file's time to what it was."""
    file = place / "pgbackrest.conf"
    before = file.stat()
    with file.open("r+") as opened:
        opened.write(CONFIGURATION.replace("/one", "/two"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    return {}


def included(place: Path) -> dict[str, str]:
    """Add a file where pgBackRest includes all."""
    (place / "conf.d" / "more.conf").write_text("[global:backup]\nrepo1-path=/two\n")
    return {}


def in_environment(_place: Path) -> dict[str, str]:
    """Set a variable."""
    return {"PGBACKREST_REPO1_PATH": "/two"}


def another_file(place: Path) -> dict[str, str]:
    """Name another file."""
    (place / "other.conf").write_text(CONFIGURATION.replace("/one", "/two"))
    return {"PGBACKREST_CONFIG": str(place / "other.conf")}


def another_program(place: Path) -> dict[str, str]:
    """Put another program in its place."""
    program = place / "bin" / "pgbackrest"
    text = program.read_text()
    program.unlink()
    program.write_text(text.replace("exec", "PGBACKREST_REPO1_PATH=/two exec"))
    program.chmod(0o755)
    return {}


@pytest.mark.parametrize("change", [in_place, included, in_environment, another_file, another_program])
def test_whatever_changes_is_seen_at_once(place: Path, change: Callable[[Path], dict[str, str]]) -> None:
    assert ask(place) == ("/one 0", 1)
    assert ask(place) == ("/one 0", 0)
    assert ask(place, **change(place)) == ("/two 0", 1)


def test_a_configuration_that_is_gone_is_seen_at_once(place: Path) -> None:
    assert ask(place) == ("/one 0", 1)
    (place / "pgbackrest.conf").unlink()
    assert ask(place) == ("None 55", 1)
    assert ask(place) == ("None 55", 1)  # what failed is asked again each time
