"""What is mounted below a directory: found in the mount table, and undone when a stack is closed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_iopbackup.limits import Limits
from pytest_iopbackup.stack import mounts
from pytest_iopbackup.stack.binaries import Binaries
from pytest_iopbackup.stack.local import LocalStack
from pytest_iopbackup.stack.local_services import LocalSettings
from running import mounted

TABLE = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 0:40 / {base}/run rw - tmpfs none rw
41 40 7:0 / {base}/run/s-1/repo rw shared:5 - ext4 /dev/loop0 rw
42 41 0:42 / {base}/run/s-1/repo rw - tmpfs none rw
43 42 0:43 / {base}/run/s-1/repo/a\\040b\\134 rw - tmpfs none rw
44 27 0:44 / {base}/run2 rw - tmpfs none rw
45 27 0:45 / {base} rw - tmpfs none rw
"""


def test_the_mounts_of_a_directory_come_in_the_order_in_which_they_can_be_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(TABLE.format(base=tmp_path))
    monkeypatch.setattr(mounts, "_MOUNTS", table)
    found = [(str(mount.point.relative_to(tmp_path)), mount.device) for mount in mounts.below(tmp_path / "run")]
    assert found == [
        ("run/s-1/repo/a b\\", "0:43"),
        ("run/s-1/repo", "0:42"),
        ("run/s-1/repo", "7:0"),
        ("run", "0:40"),
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="not run: to mount something takes root")
@pytest.mark.parametrize("kept", [False, True])
def test_a_closed_stack_leaves_nothing_mounted(base: Path, kept: bool) -> None:
    stack = LocalStack(base / "s-1", LocalSettings(binaries=Binaries(base, base, base, "", ""), limits=Limits()))
    stack.make_directories()
    (base / "precious").mkdir()
    (base / "precious" / "file").write_text("x")
    subprocess.run(["mount", "--bind", base / "precious", stack.places.repository], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", stack.places.spool], check=True)
    stack.kept = kept
    stack.close()
    assert list(mounted(base)) == []
    assert (base / "precious" / "file").read_text() == "x"
    assert stack.directory.exists() is kept
