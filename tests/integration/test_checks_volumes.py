"""The checks on volumes that are read-only, full, about to be full, or hang: real mounts, which take root."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from damage import frozen, image, mounted
from pgbackrest_system import USER, System, all_but, marked, statuses, system, wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="not run: to mount something takes root"),
]
QUICK = {"PGBACKREST_ARCHIVE_TIMEOUT": "2", "IOP_ARCHIVE_CHECK_TIMEOUT": "5", "IOP_PROBE_TIMEOUT": "3"}
MIB = 1 << 20


@contextmanager
def with_repository_on(*how: str) -> Iterator[System]:
    """Give a system whose repository is a volume of its own, with a backup, all green."""
    with system() as new:
        new.must("cp", "--archive", new.repository, new.root / "begun")
        with mounted(new.repository, *how):
            owner = pwd.getpwnam(USER or "")
            os.chown(new.repository, owner.pw_uid, owner.pw_gid)
            new.must("cp", "--archive", f"{new.root}/begun/.", new.repository)
            new.must(new.scripts / "backup.sh")
            wait_for(lambda: new.check()[0] == 0, seconds=30)
            yield new
            new.postgres("stop")


@pytest.fixture(scope="module")
def stack() -> Iterator[System]:
    with with_repository_on("-t", "tmpfs", "-o", "size=192m,nr_inodes=500,mode=750", "small") as new:
        yield new


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with (
        image(tmp_path_factory.mktemp("disk") / "image") as disk,
        with_repository_on("-o", "loop", str(disk)) as new,
    ):
        yield new


def fill(path: Path, percent: int) -> None:
    """Leave so much of a file system free, in percent."""
    found = os.statvfs(path.parent)
    room = found.f_bavail - found.f_blocks * percent // 100
    with path.open("ab") as file:
        file.write(bytes(room * found.f_frsize))


def healed(stack: System) -> bool:
    """Whether all is green; a failed archive_command is tried again when the check ends the next segment."""
    return statuses(stack.check()[1]) == all_but()


def test_a_repository_mounted_read_only_is_seen(stack: System) -> None:
    with mounted(stack.repository, "--bind", str(stack.repository)):
        subprocess.run(("mount", "-o", "remount,bind,ro", stack.repository), check=True)
        checks = stack.check(**QUICK)[1]
        assert (checks["space"]["status"], checks["wal-archiving"]["code"]) == ("critical", 82), checks
        assert "repository is mounted read-only" in checks["space"]["seen"]
    wait_for(lambda: healed(stack), seconds=75)


def test_too_little_room_is_seen_while_archiving_still_works(stack: System) -> None:
    filler = stack.repository / "filler"
    try:
        for percent, status in ((8, "warning"), (3, "critical")):
            fill(filler, percent)
            checks = stack.check()[1]
            assert statuses(checks) == all_but(space=status)
            assert "bytes are free" in checks["space"]["seen"]
        fill(filler, 0)
        full = stack.check(**QUICK)[1]
        assert (full["space"]["status"], full["wal-archiving"]["status"]) == ("critical", "critical"), full
    finally:
        filler.unlink()
    wait_for(lambda: healed(stack), seconds=75)


def test_inodes_that_are_used_up_are_seen_while_there_is_room(stack: System) -> None:
    directory = stack.repository / "small-files"
    directory.mkdir()
    try:
        for n in range(os.statvfs(directory).f_ffree):
            (directory / str(n)).touch()
        with pytest.raises(OSError, match="No space left"):
            (directory / "one more").touch()
        checks = stack.check(**QUICK)[1]
        assert (checks["space"]["status"], checks["wal-archiving"]["status"]) == ("critical", "critical"), checks
        assert "inodes are free" in checks["space"]["seen"]
        assert "bytes are free" not in checks["space"]["seen"]
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
    wait_for(lambda: healed(stack), seconds=75)


def test_a_volume_that_fills_up_is_seen_long_before_it_is_full(stack: System) -> None:
    (stack.state / "remembered-iop-space.json").unlink()  # the tests before this one filled it, too
    filler = stack.repository / "filler"

    def grown() -> bool:
        with filler.open("ab") as file:
            file.write(bytes(8 * MIB))
        space = stack.check()[1]["space"]
        assert "bytes are free" not in space["seen"], "it is nearly full already"
        return space["status"] == "warning" and "if it goes on filling" in space["seen"]

    try:
        wait_for(grown, seconds=60)
        found = os.statvfs(stack.repository)
        assert found.f_bavail > 0.5 * found.f_blocks
    finally:
        filler.unlink()
    wait_for(lambda: healed(stack), seconds=30)


def stuck(stack: System) -> bool:
    """Whether a process of the system is in uninterruptible sleep (proc(5), stat)."""
    for pid in marked(stack.mark):
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "D":
                return True
    return False


def test_a_repository_that_hangs_so_that_nothing_can_be_killed_holds_no_check_up(on_disk: System) -> None:
    with frozen(on_disk.repository):
        started = time.monotonic()
        checks = on_disk.check(**QUICK)[1]
        assert time.monotonic() - started < 5 + 4 * 3
        assert stuck(on_disk)
        assert (checks["wal-archiving"]["status"], checks["postgresql"]["status"]) == ("critical", "ok"), checks
        assert checks["wal-archiving"]["code"] == 82
        wait_for(lambda: on_disk.check(**QUICK, IOP_READY_AGE="1")[1]["archiver"]["status"] == "critical", seconds=30)
    wait_for(lambda: not stuck(on_disk))
    wait_for(lambda: healed(on_disk), seconds=75)


def test_a_state_directory_that_hangs_turns_the_check_worker_unhealthy(on_disk: System, tmp_path: Path) -> None:
    """The worker itself cannot go on; whoever reads its record sees that its heart has stopped."""
    worker = (on_disk.scripts / "worker.sh", "check", on_disk.scripts / "check.sh")
    beat = {"IOP_HEARTBEAT": "1"}

    def complaint() -> str:
        return on_disk.run("python3", "-B", on_disk.scripts / "health.py", "worker", "check", **beat).stdout

    with image(tmp_path / "image") as disk, mounted(on_disk.state, "-o", "loop", str(disk)):
        owner = pwd.getpwnam(USER or "")
        os.chown(on_disk.state, owner.pw_uid, owner.pw_gid)
        with on_disk.started(*worker, PGBACKREST_FREQUENCY="1", **beat) as (process, _):
            wait_for(lambda: complaint() == "worker check: ok\n", seconds=30)
            with frozen(on_disk.state):
                wait_for(lambda: "no heartbeat for" in complaint(), seconds=20)
            wait_for(lambda: complaint() == "worker check: ok\n", seconds=20)
            process.terminate()
            assert process.wait(10) == 0
