"""A restore that is interrupted from a terminal, and one whose guard is taken away."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployment import TOKEN, Deployment, deployment, wait_for
from restoring import Running, hold_up, marker, spied_docker


@pytest.fixture(scope="module")
def slow() -> Iterator[tuple[Deployment, Path]]:
    with deployment(PGBACKREST_CHECK_FREQUENCY="3600") as it:
        slow = hold_up(it)
        result = it.control("up")
        assert result.returncode == 0, result.stdout + result.stderr
        wait_for(it.backups, what="the first backup")
        it.sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
        yield it, slow


def containers(system: Deployment) -> list[str]:
    """Return the names of the restore's containers that run."""
    listed = system.must("docker", "ps", "--format", "{{.Names}}", "--filter", f"name={system.project}-restore")
    return listed.split()


def on_a_terminal(system: Deployment, log: Path) -> tuple[subprocess.Popen[Any], int]:
    """Start a restore on a terminal of its own; return it and the terminal's other side, copied to a file."""
    ours, theirs = pty.openpty()
    argv: list[str | Path] = ["setsid", "--ctty", "--wait", system.directory / "control.sh", "restore", TOKEN]
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    os.set_blocking(ours, False)
    log.touch()
    return process, ours


def test_ctrl_c_while_files_are_restored(slow: tuple[Deployment, Path], tmp_path: Path) -> None:
    system, flags = slow
    (flags / "restore").touch()
    log = tmp_path / "terminal"
    process, terminal = on_a_terminal(system, log)

    def said(text: str) -> bool:
        try:
            with log.open("ab") as file:
                file.write(os.read(terminal, 1 << 16))
        except OSError:  # nothing new, or nobody has it open any more
            pass
        return text in log.read_text()

    wait_for(lambda: said("half restored"), what="half of the files")
    os.write(terminal, b"\x03")
    wait_for(lambda: said("the same command takes it up again"), 30, "the message")
    assert process.wait(30) == 130, log.read_text()
    assert "ERROR: interrupted" in log.read_text()
    wait_for(lambda: not containers(system), what="the restore's containers end")
    assert (marker(system) or {})["stage"] == "restoring"
    (flags / "restore").unlink()


def test_without_its_guard_a_restore_does_not_go_on(slow: tuple[Deployment, Path], tmp_path: Path) -> None:
    system, flags = slow
    path = spied_docker(tmp_path, f'*" stop pgbackrest_check "*) while [[ -e {tmp_path}/hold ]]; do sleep 0.1; done ;;')
    gone = f"the container {system.project}-restore, which stands for this restore, is gone"

    (tmp_path / "hold").touch()
    run = Running(system, PATH=path)
    run.wait_for_output("stopping the workers")
    system.must("docker", "kill", f"{system.project}-restore")
    (tmp_path / "hold").unlink()
    assert run.end() == 1, run.output
    assert gone in run.output
    assert "clearing" not in run.output

    (flags / "archive-get").touch()
    run = Running(system)
    run.wait_for_output("starting the database")
    wait_for(lambda: "rejecting" in system.exec("database", "pg_isready").stdout, what="recovery")
    system.must("docker", "kill", f"{system.project}-restore")
    assert run.end() == 1, run.output
    assert gone in run.output
    run = Running(system)
    run.wait_for_output("the files were restored before")
    (flags / "archive-get").unlink()
    assert run.end() == 0, run.output
    assert system.sql("SELECT n FROM kept") == "1"
