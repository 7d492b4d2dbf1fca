"""Which files transactions change, by pg_waldump's lines: none may be lost on the way unseen."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_iopbackup.cluster import wal

LINES = """\
rmgr: Standby len (rec/tot): 50/50, tx:   0, lsn: 0/1, prev 0/0, desc: RUNNING_XACTS nextXid 731 latestCompletedXid 7
rmgr: Heap len (rec/tot): 54/54, tx: 731, lsn: 0/2, prev 0/1, desc: INSERT off 1, blkref #0: rel 1663/5/100 blk 0
rmgr: Heap len (rec/tot): 54/54, tx: 731, lsn: 0/3, prev 0/2, desc: LOCK off 1, blkref #0: rel 1663/5/200 blk 0
rmgr: XLOG len (rec/tot): 49/49, tx: 731, lsn: 0/4, prev 0/3, desc: FPI_FOR_HINT , blkref #0: rel 1663/5/201 blk 0
rmgr: Heap2 len (rec/tot): 58/58, tx:   0, lsn: 0/5, prev 0/4, desc: PRUNE ndead 0, blkref #0: rel 1663/5/202 blk 0
rmgr: Storage len (rec/tot): 42/42, tx: 732, lsn: 0/6, prev 0/5, desc: TRUNCATE base/5/101 to 0 blocks flags 7
rmgr: Storage len (rec/tot): 42/42, tx: 732, lsn: 0/7, prev 0/6, desc: CREATE pg_tblspc/9/PG_15_202209061/5/102
rmgr: Standby len (rec/tot): 42/42, tx: 732, lsn: 0/8, prev 0/7, desc: LOCK xid 732 db 5 rel 203
rmgr: Standby len (rec/tot): 50/50, tx:   0, lsn: 0/9, prev 0/8, desc: RUNNING_XACTS nextXid 740 latestCompletedXid 739
"""


def filtered(directory: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    (directory / "lines").write_text(LINES)
    for name, script in {"pg_waldump": f"cat {directory}/lines", **programs}.items():
        path = directory / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    env = {"PATH": f"{directory}:{os.environ['PATH']}"}
    return subprocess.run(wal._ONLY_CHANGES, env=env, capture_output=True, text=True, check=False)


def test_rows_that_transactions_change_count_and_nothing_else(tmp_path: Path) -> None:
    done = filtered(tmp_path)
    assert done.returncode == 0, done.stderr
    changes = wal._changes(set(done.stdout.splitlines()))
    assert changes == wal.Changes(files=frozenset({(5, 100), (5, 101), (5, 102)}), following=731)


def test_without_a_logged_snapshot_nothing_is_known() -> None:
    assert wal._changes({"rel 1663/5/100"}) is None


@pytest.mark.parametrize("program", ["grep", "sort"])
def test_lines_that_may_be_lost_are_told(tmp_path: Path, program: str) -> None:
    assert filtered(tmp_path, **{program: "exit 2"}).returncode == 3


def test_what_pg_waldump_says_of_the_end_of_wal_is_kept(tmp_path: Path) -> None:
    done = filtered(tmp_path, pg_waldump=f"cat {tmp_path}/lines; echo trouble >&2; exit 1")
    assert (done.returncode, done.stderr) == (1, "trouble\n")
    assert "rel 1663/5/100" in done.stdout
