"""Real runs that end badly: nothing of them stays, or the next sweep takes it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_iopbackup.limits import wait_until
from running import Remains, Run, remains, write_scenario

pytestmark = pytest.mark.integration

BUILDING = "mine: bringing the stack up …"
WRITING = "mine [1/5] write 20 transactions, 4 clients …"
RESTORING = "mine [4/5] restore to here by time …"

NOTHING = Remains(frozenset(), frozenset(), frozenset())


def start(tmp_path: Path, base: Path, *arguments: str, terminal: bool = False) -> Run:
    """Start a run of two scenarios, of which the second is never reached."""
    for name in ("mine", "other"):
        write_scenario(tmp_path, name)
    selected = ("--iop-scenario=./mine.yaml", "--iop-scenario=./other.yaml")
    options = (*selected, f"--iop-report-dir={tmp_path}/out", *arguments)
    return Run("pytest", *options, cwd=tmp_path, base=base, terminal=terminal)


def interrupt(run: Run, base: Path, moment: str, number: signal.Signals) -> Remains:
    """Send a signal when a moment has come and a server is running; return what there was of the run then."""
    run.await_output(moment)
    pattern = "iop-*/b-*/data/postmaster.pid" if moment == BUILDING else "iop-*/s-*/data/postmaster.pid"
    wait_until(lambda: any(base.glob(pattern)) or moment == RESTORING, limit=60, what="a server of the run")
    before = remains(base)
    run.send(number)
    return before


@pytest.mark.parametrize(
    ("number", "moment", "arguments"),
    [
        (signal.SIGINT, RESTORING, ()),
        (signal.SIGTERM, BUILDING, ()),
        (signal.SIGTERM, WRITING, ("-n", "2")),
    ],
    ids=["Ctrl-C in a restore", "SIGTERM while the template is built", "SIGTERM under xdist"],
)
def test_nothing_is_left_of_a_run_that_was_interrupted(
    tmp_path: Path, base: Path, number: signal.Signals, moment: str, arguments: tuple[str, ...]
) -> None:
    terminal = number is signal.SIGINT
    with start(tmp_path, base, *arguments, terminal=terminal) as run:
        before = interrupt(run, base, moment, number)
        assert run.end(limit=40) == pytest.ExitCode.INTERRUPTED
    assert before.directories
    assert before.processes
    assert remains(base, segments=before.segments) == NOTHING
    assert list((tmp_path / "out").iterdir()) == []
    assert "KeyboardInterrupt" in run.output
    assert "INTERNALERROR" not in run.output
    assert ("\r\033[K" in run.output) is terminal


def test_what_sigkill_leaves_is_swept_by_the_command_which_touches_nothing_else(tmp_path: Path, base: Path) -> None:
    precious = [base / "iop-notours", base / "iop-12345678", base / "elsewhere"]
    for folder in precious:
        folder.mkdir()
        (folder / "file").write_text("x")
    (base / "elsewhere" / "owner.json").write_text('{"software": "pytest-iopbackup"}')
    (base / "iop-deadbeef").symlink_to(base / "elsewhere")

    with start(tmp_path, base) as run:
        before = interrupt(run, base, WRITING, signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
    left = remains(base, segments=before.segments)
    assert any("postgres" in process for process in left.processes)
    assert left.segments
    assert list((tmp_path / "out").iterdir()) == []

    sweeping = subprocess.run(
        [sys.executable, "-m", "pytest_iopbackup", "sweep"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(base)},
        timeout=60,
    )
    (directory,) = left.directories - {"iop-notours", "iop-12345678", "iop-deadbeef"}
    assert sweeping.stderr.startswith(f"swept {base}/{directory}: ")
    swept = remains(base, segments=left.segments)
    assert (swept.processes, swept.segments) == (frozenset(), frozenset())
    assert swept.directories == {"iop-notours", "iop-12345678", "iop-deadbeef"}
    assert [(folder / "file").read_text() for folder in precious] == ["x"] * 3


@pytest.mark.skipif(os.geteuid() != 0, reason="not run: to freeze a file system takes root")
def test_a_frozen_repository_of_a_killed_run_is_thawed_unmounted_and_swept(tmp_path: Path, base: Path) -> None:
    steps = "steps:\n  - fault: repository-frozen\n"
    (tmp_path / "mine.yaml").write_text(f"name: mine\ntitle: It freezes\ndataset: {{users: 20}}\n{steps}")
    with Run("pytest", "--iop-scenario=./mine.yaml", cwd=tmp_path, base=base) as run:
        run.await_output("fault repository-frozen")
        wait_until(lambda: hanging(base) or None, limit=60, what="a writer that hangs")
        before = remains(base)
        run.send(signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
    left = remains(base, segments=before.segments)
    assert hanging(base)
    (directory,) = left.directories
    assert {Path(name).name for name in left.mounts if "/" in name} == {"origin", "repo", "volume"}
    assert any(name.startswith("loop") for name in left.mounts)

    with start(tmp_path, base, "--collect-only") as run:
        assert run.end() == pytest.ExitCode.OK
    assert f"swept what a killed run had left: {base}/{directory}, " in run.output
    assert remains(base, segments=left.segments) == NOTHING


def hanging(base: Path) -> list[str]:
    """Return the ids of processes in uninterruptible sleep that belong to a stack in a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            if f"IOP_STACK={base}/".encode() in (entry / "environ").read_bytes():
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                wait = (entry / "wchan").read_text()
                found += [entry.name] if state == "D" and "rwsem" in wait else []
    return found


def test_what_sigkill_leaves_is_swept_by_the_next_run(tmp_path: Path, base: Path) -> None:
    with start(tmp_path, base) as run:
        before = interrupt(run, base, BUILDING, signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
    left = remains(base, segments=before.segments)
    assert left.processes
    (directory,) = left.directories

    with start(tmp_path, base, "--collect-only") as run:
        assert run.end() == pytest.ExitCode.OK
    assert f"swept what a killed run had left: {base}/{directory}, " in run.output
    assert remains(base, segments=left.segments) == NOTHING
