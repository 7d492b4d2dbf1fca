"""core.sh where PostgreSQL's major version has changed: no two majors can be had here, so pgBackRest is scripted."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from pgbackrest_system import SCRIPTS, wait_for

FAKE = """\
#!/bin/bash
case $1 in
    info) printf '%s\\n' "$INFO" ;;
    *) echo "$*" >>"$CALLED" ;;
esac
"""


@pytest.mark.parametrize(
    ("known", "command"),
    [("16", "stanza-upgrade --no-online"), ("17", "stanza-create --no-online"), (None, "stanza-create --no-online")],
    ids=["another major", "the same", "none yet"],
)
def test_the_stanza_is_created_or_upgraded_as_the_cluster_asks_for(
    tmp_path: Path, known: str | None, command: str
) -> None:
    data, called, programs = tmp_path / "data", tmp_path / "called", tmp_path / "bin"
    data.mkdir()
    (data / "PG_VERSION").write_text("17\n")
    programs.mkdir()
    (programs / "pgbackrest").write_text(FAKE)
    (programs / "pgbackrest").chmod(0o755)
    code = 0 if known else 1
    info = [{"repo": [{"status": {"code": code, "message": "-"}}], "db": [{"version": known}] if known else []}]
    process = subprocess.Popen(
        [SCRIPTS / "core.sh"],
        env={
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PGDATA": str(data),
            "PGBACKREST_STANZA": "iop",
            "TMPDIR": str(tmp_path),
            "INFO": json.dumps(info),
            "CALLED": str(called),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(called.exists)
    finally:
        process.terminate()
        printed, _ = process.communicate(timeout=10)
    assert called.read_text().splitlines() == [command], printed
    assert ("upgrading it" in printed) is (known == "16")
