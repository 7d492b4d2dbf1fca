"""The directory that a run lives in: shared, removed by the last one out, swept where its run was killed."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_iopbackup.__main__ import main
from pytest_iopbackup.errors import MachineError
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack import leftovers, mounts
from pytest_iopbackup.stack import workspace as workspace_module
from pytest_iopbackup.stack.host import Account, account
from pytest_iopbackup.stack.workspace import NEEDED_BYTES, Workspace, keep, sweep
from running import mounted

takes_root = pytest.mark.skipif(os.geteuid() != 0, reason="not run: to mount something takes root")

# Makes a run's directory with a stack in it and waits for its death.
VICTIM = """\
import sys
from pathlib import Path
from pytest_iopbackup.stack.workspace import Workspace
workspace = Workspace(Path(sys.argv[1]), "deadbeef")
(workspace.path / "s-main-1" / "data").mkdir(parents=True)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def killed(base: Path) -> Path:
    """Give the directory of a run that got SIGKILL."""
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    return base / "iop-deadbeef"


@pytest.fixture
def programs() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Give a list of processes to end when the test is over."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait(10)


@pytest.fixture
def segments() -> Iterator[list[int]]:
    """Give a list of System V shared memory segments to remove when the test is over."""
    made: list[int] = []
    yield made
    for identifier in made:
        subprocess.run(["ipcrm", "-m", str(identifier)], check=False, capture_output=True)


def make_segment(size: int) -> int:
    identifier = ctypes.CDLL(None, use_errno=True).shmget(0, size, 0o600 | 0o1000)  # IPC_PRIVATE, IPC_CREAT
    assert identifier >= 0, os.strerror(ctypes.get_errno())
    return int(identifier)


def existing_segments() -> set[int]:
    return {int(line.split()[1]) for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


def note_segment(stack: Path, identifier: int) -> None:
    """Write line 7 of ``postmaster.pid`` as PostgreSQL does: the segment's key and identifier."""
    (stack / "data").mkdir(parents=True, exist_ok=True)
    (stack / "data" / "postmaster.pid").write_text(f"1\n/d\n1700000000\n5432\n/s\n\n  5432001 {identifier:9}\nready\n")


def test_a_run_has_a_directory_for_its_user_alone_until_it_ends(base: Path) -> None:
    workspace = Workspace(base)
    status = workspace.path.stat()
    assert workspace.path.parent == base
    assert stat.S_IMODE(status.st_mode) == 0o700
    assert status.st_uid == account().uid
    (workspace.path / "s-main-1").mkdir()
    assert workspace.close() == ()
    assert list(base.iterdir()) == []


def test_processes_of_a_run_share_its_directory_and_the_last_one_out_removes_it(base: Path) -> None:
    first, second = Workspace(base, "0a1b2c3d"), Workspace(base, "0a1b2c3d")
    assert first.path == second.path == base / "iop-0a1b2c3d"
    first.close()
    assert second.path.is_dir()
    second.close()
    assert not second.path.exists()


def test_two_runs_have_directories_of_their_own(base: Path) -> None:
    first, second = Workspace(base), Workspace(base)
    assert first.path != second.path
    first.close()
    assert list(base.iterdir()) == [second.path]
    second.close()


def test_what_lost_its_permissions_is_removed_all_the_same(base: Path) -> None:
    workspace = Workspace(base)
    folder = workspace.path / "s-main-1" / "repo"
    folder.mkdir(parents=True)
    (folder / "backup.info").write_text("x")
    (folder / "backup.info").chmod(0)
    folder.chmod(0)
    workspace.close()
    assert list(base.iterdir()) == []


def test_too_little_space_is_said_before_anything_runs(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=NEEDED_BYTES - 1))
    with pytest.raises(MachineError, match=rf"{base} has 767 MB free; a local stack needs about 768 MB") as caught:
        Workspace(base)
    assert "--iop-work-dir=DIR or TMPDIR" in (caught.value.hint or "")
    assert list(base.iterdir()) == []


def test_no_space_at_all_is_said_in_the_same_words(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(MachineError, match=r"MB free; a local stack needs about 768 MB"):
            Workspace(base)
    assert list(base.iterdir()) == []


def test_a_place_that_the_user_may_not_write_in_is_said_with_the_way_out(base: Path) -> None:
    base.chmod(0o500)  # as root, the user is another
    with pytest.raises(MachineError, match=rf"cannot (write|make a directory) in {base}") as caught:
        Workspace(base)
    assert "--iop-work-dir=DIR" in (caught.value.hint or "")
    assert list(base.iterdir()) == []


def test_a_killed_run_is_swept(base: Path, killed: Path) -> None:
    assert (killed / "s-main-1" / "data").is_dir()
    swept = sweep(base)
    assert [(one.directory, one.processes) for one in swept] == [(killed, ())]
    assert list(base.iterdir()) == []
    assert sweep(base) == ()


def test_a_sweep_ends_the_killed_runs_processes_and_no_others(
    base: Path, killed: Path, programs: list[subprocess.Popen[bytes]]
) -> None:
    stack = killed / "s-main-1"
    other = base / "iop-0a1b2c3d" / "s-main-1"
    other.mkdir(parents=True)

    def start(*argv: str, mark: Path | None = None, cwd: Path = base) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            argv, cwd=cwd, env={leftovers.MARKER: str(mark)} if mark else {}, stdout=subprocess.PIPE
        )
        programs.append(process)
        return process

    worker = start("/bin/bash", "-c", "echo ready; sleep 60; exit", mark=stack)
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"
    stopped = start("/bin/sleep", "60", mark=stack)
    stopped.send_signal(signal.SIGSTOP)
    strangers = [
        start("/bin/sleep", "60", mark=other),
        start("/bin/sleep", "60", mark=killed.with_name("iop-deadbeef0")),
        start("/bin/sleep", "60", cwd=stack / "data"),  # somebody looks around in there
    ]
    (swept,) = sweep(base)
    assert {process.pid for process in swept.processes} >= {worker.pid, stopped.pid}
    assert worker.wait(10) == -signal.SIGKILL
    assert stopped.wait(10) == -signal.SIGKILL
    assert [stranger.poll() for stranger in strangers] == [None] * 3
    assert not {process.pid for process in swept.processes} & {stranger.pid for stranger in strangers}


def test_a_sweep_releases_the_killed_servers_shared_memory_and_no_other(
    base: Path, killed: Path, segments: list[int]
) -> None:
    servers, unnoted, large = make_segment(56), make_segment(56), make_segment(1 << 20)
    segments += [servers, unnoted, large]
    note_segment(killed / "s-main-1", servers)
    note_segment(killed / "t-42-20", large)  # an identifier that was used again by something else
    (killed / "b-42-20" / "data").mkdir(parents=True)
    (killed / "b-42-20" / "data" / "postmaster.pid").write_text("torn")
    sweep(base)
    assert {servers, unnoted, large} & existing_segments() == {unnoted, large}


def test_a_live_run_is_left_alone(base: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert sweep(base) == ()
        assert (base / "iop-deadbeef" / "s-main-1").is_dir()
        assert process.poll() is None
        process.kill()


@pytest.mark.parametrize("name", ["iop-notours", "iop-1234567", "iop-123456789", "iop-DEADBEEF", "iop-deadbeef.old"])
def test_another_name_is_left_alone(base: Path, killed: Path, name: str) -> None:
    killed.rename(base / name)
    assert sweep(base) == ()
    assert (base / name / "s-main-1").is_dir()


@pytest.mark.parametrize("owner", [None, "", '{"software": "something else"}'])
def test_a_directory_without_our_signature_is_left_alone(base: Path, owner: str | None) -> None:
    folder = base / "iop-12345678"
    folder.mkdir()
    (folder / "precious").write_text("x")
    if owner is not None:
        (folder / "owner.json").write_text(owner)
    assert sweep(base) == ()
    assert (folder / "precious").read_text() == "x"


def test_a_link_is_left_alone_and_so_is_what_it_points_at(base: Path, killed: Path) -> None:
    elsewhere = base / "elsewhere"
    killed.rename(elsewhere)
    killed.symlink_to(elsewhere)
    assert sweep(base) == ()
    assert killed.is_symlink()
    assert (elsewhere / "s-main-1").is_dir()


def test_links_inside_are_removed_and_not_followed(base: Path, killed: Path) -> None:
    precious = base / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (killed / "s-main-1" / "pg_wal").symlink_to(precious)
    sweep(base)
    assert list(base.iterdir()) == [precious]
    assert (precious / "file").read_text() == "x"


@takes_root
def test_what_is_mounted_in_a_killed_run_is_taken_away_and_not_emptied(base: Path, killed: Path) -> None:
    precious, other = base / "precious", base / "iop-deadbeef0"
    for folder in (precious, other, killed / "s-main-1" / "a repo"):
        folder.mkdir(parents=True)
    (precious / "file").write_text("x")
    mount("--bind", precious, killed / "s-main-1" / "a repo")
    mount("-t", "tmpfs", "none", killed / "s-main-1" / "a repo")
    (killed / "s-main-1" / "a repo" / "below").mkdir()
    mount("--bind", precious, killed / "s-main-1" / "a repo" / "below")
    mount("--bind", precious, killed / "s-main-1" / "data")
    mount("--bind", precious, other)
    sweep(base)
    assert (precious / "file").read_text() == "x"
    assert sorted(base.iterdir()) == [other, precious]
    assert set(mounted(base)) == {str(other)}


@takes_root
def test_where_a_mount_cannot_be_undone_nothing_is_deleted_and_a_later_sweep_takes_it(
    base: Path, killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = base / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    mount("--bind", precious, killed / "s-main-1" / "data")
    with monkeypatch.context() as patch:
        patch.setattr(mounts, "_run", lambda *_: False)  # as for an ordinary user
        sweep(base)
    assert (precious / "file").read_text() == "x"
    assert (killed / "s-main-1" / "data" / "file").read_text() == "x"
    sweep(base)
    assert (precious / "file").read_text() == "x"
    assert list(base.iterdir()) == [precious]


@takes_root
@pytest.mark.parametrize("unmounted", [False, True])
def test_a_frozen_file_system_of_a_killed_run_is_thawed_so_that_its_writers_end(
    base: Path, killed: Path, programs: list[subprocess.Popen[bytes]], unmounted: bool
) -> None:
    stack = killed / "s-main-1"
    place, image = stack / "data", stack / "image"
    subprocess.run(["truncate", "--size=16M", image], check=True)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", image], check=True)
    mount("-o", "loop", image, place)
    if unmounted:  # where it is hangs on: mounted elsewhere, it must still be thawed
        (base / "elsewhere").mkdir()
        mount("--bind", place, base / "elsewhere")
        subprocess.run(["umount", place], check=True)
        place = base / "elsewhere"
    subprocess.run(["/usr/sbin/fsfreeze", "--freeze", place], check=True)
    writer = subprocess.Popen(["/bin/touch", place / "file"], env={leftovers.MARKER: str(stack)})
    programs.append(writer)
    state = Path(f"/proc/{writer.pid}/wchan")
    wait_until(lambda: "rwsem" in state.read_text() or None, limit=5, what="the writer to hang")
    sweep(base)
    assert writer.wait(10) in {-signal.SIGKILL, 0}  # the moment between the thaw and its end may be enough for it
    assert not killed.exists()
    left = sorted(name for name in mounted(base) if unmounted is False or not name.startswith("loop"))
    assert left == ([str(place)] if unmounted else [])


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *arguments], check=True)


def test_somebody_elses_directory_is_left_alone(base: Path, killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(workspace_module, "account", lambda: Account("other", 54321, 54321))
    assert sweep(base) == ()
    assert (killed / "s-main-1").is_dir()


def test_a_directory_that_its_run_could_not_even_sign_is_swept(base: Path) -> None:
    (base / "iop-12345678").mkdir()
    sweep(base)
    assert list(base.iterdir()) == []


def test_a_kept_stack_outlives_its_run_and_every_sweep(base: Path) -> None:
    workspace = Workspace(base)
    kept, other = workspace.path / "s-main-1", workspace.path / "s-main-2"
    kept.mkdir()
    other.mkdir()
    keep(kept)
    workspace.close()
    assert [path.name for path in workspace.path.iterdir()] == ["s-main-1"]
    assert sweep(base) == ()
    assert kept.is_dir()
    shutil.rmtree(kept)
    sweep(base)
    assert list(base.iterdir()) == []


def test_a_server_that_somebody_started_in_a_kept_stack_is_left_alone(
    base: Path, programs: list[subprocess.Popen[bytes]]
) -> None:
    workspace = Workspace(base)
    kept = workspace.path / "s-main-1"
    kept.mkdir()
    keep(kept)
    workspace.close()
    programs.append(sleeping(kept))
    sweep(base)
    assert programs[0].poll() is None


def sleeping(stack: Path) -> subprocess.Popen[bytes]:
    """Start a program of a stack; it is the stack's a moment after it was started, when it shows its environment."""
    program = subprocess.Popen(["/bin/sleep", "60"], env={leftovers.MARKER: str(stack)})
    wait_until(lambda: leftovers.find(stack) or None, limit=5, what="its environment")
    return program


def test_what_a_killed_run_had_kept_stays_and_the_rest_is_swept(
    base: Path, killed: Path, programs: list[subprocess.Popen[bytes]]
) -> None:
    kept, other = killed / "s-main-1", killed / "s-main-2"
    other.mkdir()
    keep(kept)
    programs.append(sleeping(other))
    (swept,) = sweep(base)
    assert [process.pid for process in swept.processes] == [programs[0].pid]
    assert [path.name for path in killed.iterdir()] == ["s-main-1"]
    assert sweep(base) == ()


def test_the_command_sweeps_and_says_what_it_swept(
    base: Path, killed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", str(base)]) == 0
    assert capsys.readouterr().err == f"swept {killed}: 0 processes of a killed run\n"
    assert main(["sweep", str(base)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [[], ["swep"]])
def test_the_command_refuses_what_it_does_not_know(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 4
    assert "usage: python -m pytest_iopbackup sweep" in capsys.readouterr().err
