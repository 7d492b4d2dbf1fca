"""When backup.sh lets retention work: only after a good backup, and not just after a restore."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from pgbackrest_system import System, system, wait_for

KEEP_ONE = {"PGBACKREST_REPO1_RETENTION_FULL": "1", "PGBACKREST_REPO1_RETENTION_ARCHIVE": "1"}


@pytest.fixture
def fresh() -> Iterator[System]:
    with system() as it:
        yield it


def labels(system: System) -> list[str]:
    return [str(backup["label"]) for backup in system.backups()]


def damage(system: System) -> None:
    """Overwrite part of a page, as a failing disk does."""
    system.sql("CREATE TABLE damaged AS SELECT generate_series(1, 1000) AS n")
    system.sql("CHECKPOINT")
    with (system.data / system.sql("SELECT pg_relation_filepath('damaged')")).open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 64)


def test_damaged_backups_never_push_out_the_good_ones(fresh: System) -> None:
    backup = fresh.scripts / "backup.sh"
    fresh.must(backup, "full")
    good = labels(fresh)
    damage(fresh)
    for _ in range(2):
        failed = fresh.run(backup, "full", **KEEP_ONE)
        assert failed.returncode == 5
        assert "wrong checksums; nothing expires" in failed.stderr
    assert set(good) < set(labels(fresh))
    # A differential one on a damaged full one is damaged, too; for no longer than a day is such a one built on.
    assert fresh.run(backup, **KEEP_ONE).returncode == 5
    wait_for(lambda: ", damaged, is" in fresh.run(backup, IOP_FULL_BACKUP_AGE="1").stdout)
    fresh.sql("DROP TABLE damaged")
    fresh.must(backup, "full", **KEEP_ONE)
    assert len(labels(fresh)) == 1


def test_nothing_expires_in_the_first_time_after_a_restore(fresh: System) -> None:
    backup = fresh.scripts / "backup.sh"
    fresh.must(backup, "full")
    before = labels(fresh)
    fresh.postgres("stop")
    fresh.must("pgbackrest", "--stanza=iop", "--delta", "restore")
    fresh.postgres("start")
    wait_for(lambda: fresh.sql("SELECT pg_is_in_recovery()") == "f")
    for _ in range(2):
        printed = fresh.must(backup, "full", **KEEP_ONE)
        assert "nothing expires before 20" in printed
    assert labels(fresh)[:1] == before
    assert len(labels(fresh)) == 3
    fresh.must(backup, "diff", **KEEP_ONE, IOP_EXPIRE_PAUSE="0")
    assert len(labels(fresh)) == 2  # the last full one, and the differential one on it


def test_nothing_expires_while_verify_reads_it_and_verify_waits_while_something_expires(fresh: System) -> None:
    backup, verify = fresh.scripts / "backup.sh", ("python3", "-B", fresh.scripts / "health.py", "verify")
    fresh.must(backup, "full")
    lock, remembered = fresh.state / "expire-iop.lock", fresh.state / "remembered-iop-verify.json"
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as verify does
        assert "nothing expires this time: pgbackrest verify is at work" in fresh.must(backup, "full", **KEEP_ONE)
        assert len(labels(fresh)) == 2
        fresh.must(*verify)  # another one may read as well
        ended = json.loads(remembered.read_text())["ended"]
    fresh.must(backup, "full", **KEEP_ONE)
    assert len(labels(fresh)) == 1
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as backup.sh does
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(fresh.must, *verify)
            wait_for(lambda: json.loads(remembered.read_text())["started"] > ended)
            assert json.loads(remembered.read_text())["ended"] == ended
            fcntl.flock(file, fcntl.LOCK_UN)
            run.result()
    found = json.loads(remembered.read_text())
    assert found["ended"] > ended
    assert found["problems"] == []


def test_a_pause_that_is_no_number_is_refused(fresh: System) -> None:
    refused = fresh.run(fresh.scripts / "backup.sh", IOP_EXPIRE_PAUSE="a day")
    assert refused.returncode == 2
    assert "IOP_EXPIRE_PAUSE is 'a day'" in refused.stderr


def test_a_repository_whose_archive_cannot_be_listed_expires_nothing(fresh: System) -> None:
    backup = fresh.scripts / "backup.sh"
    fresh.must(backup, "full")
    path = fresh.program("pgbackrest", 'case "$*" in repo-ls*) exit 42;; esac; exec "$real" "$@"')
    failed = fresh.run(backup, "full", **KEEP_ONE, PATH=path)
    assert failed.returncode == 4
    assert "the backup is there, but the archive cannot be listed" in failed.stderr
    assert len(labels(fresh)) == 2
