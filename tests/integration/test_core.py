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
    ("known", "code", "command"),
    [
        ("16", 0, "stanza-upgrade --no-online"),
        ("17", 0, "stanza-create --no-online"),
        ("17", 2, "stanza-create --no-online"),
        (None, 1, "stanza-create --no-online"),
    ],
    ids=["another major", "the same", "no backups", "none yet"],
)
def test_the_stanza_is_created_or_upgraded_as_the_cluster_asks_for(
    tmp_path: Path, known: str | None, code: int, command: str
) -> None:
    """And what the backup worker remembers stays only if the repository has backups of this cluster."""
    data, called, programs = tmp_path / "data", tmp_path / "called", tmp_path / "bin"
    data.mkdir()
    (data / "PG_VERSION").write_text("17\n")
    programs.mkdir()
    (programs / "pgbackrest").write_text(FAKE)
    (programs / "pgbackrest").chmod(0o755)
    (tmp_path / "backup.json").write_text("{}")
    info = [{"repo": [{"status": {"code": code, "message": "-"}}], "db": [{"version": known}] if known else []}]
    process = subprocess.Popen(
        [SCRIPTS / "core.sh"],
        env={
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PGDATA": str(data),
            "PGBACKREST_STANZA": "iop",
            "TMPDIR": str(tmp_path),
            "IOP_STATE_PATH": str(tmp_path),
            "INFO": json.dumps(info),
            "CALLED": str(called),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: (tmp_path / "trouble").exists() and not (tmp_path / "trouble").read_text())
    finally:
        process.terminate()
        printed, _ = process.communicate(timeout=10)
    assert called.read_text().splitlines() == [command], printed
    assert ("upgrading it" in printed) is (known == "16")
    assert ("WARNING: the repository does not know the stanza" in printed) is (known is None)
    assert (tmp_path / "backup.json").exists() is (known == "17" and code == 0)
