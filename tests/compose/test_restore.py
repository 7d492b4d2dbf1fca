"""control.sh restore on a deployed system, with a client that writes before, during and after it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import TOKEN, Deployment, running, wait_for
from restoring import REPOSITORY, client, marker, numbers, spied_docker


@pytest.fixture(scope="module")
def system() -> Iterator[Deployment]:
    with running() as it:
        yield it


def summary(text: str) -> dict[str, str]:
    return dict(
        re.split(" {2,}|(?<=^restored to) +|(?<=^last transaction) +", line, maxsplit=1) for line in text.splitlines()
    )


def started(system: Deployment) -> str:
    return system.sql("SELECT pg_postmaster_start_time()")


def test_the_latest_state(system: Deployment, tmp_path: Path) -> None:
    """All that was acknowledged is there, nothing else is, and the repository is not written meanwhile."""
    core = f"{system.project}-pgbackrest-1"
    spy = spied_docker(
        tmp_path,
        '*" stop pgbackrest_check "*) "$real" "$@"; code=$?; '
        f'"$real" exec {core} sh -c "$INVENTORY" >{tmp_path}/before; exit $code ;;',
        f'*" up --detach database "*) "$real" exec {core} sh -c "$INVENTORY" >{tmp_path}/after ;;',
        f'*"=plain up --detach ") "$real" exec {system.project}-database-1 psql -XAtqc '
        f'"SELECT pg_postmaster_start_time()" >>{tmp_path}/recovered ;;',
    )
    with client(system) as writer:
        writer.wrote()
        result = system.run(system.directory / "control.sh", "restore", TOKEN, PATH=spy, INVENTORY=REPOSITORY)
        writer.wrote()
    assert result.returncode == 0, result.stderr
    assert writer.refused > 0
    rows = numbers(system)
    assert set(writer.acknowledged) <= set(rows) <= set(range(1, writer.attempted + 1))
    assert len(rows) == len(set(rows))
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text() != ""

    said = summary(result.stdout)
    assert said["reached"] == "the end of the archived WAL"
    assert said["timeline"] == "2"
    labels = [backup["label"] for backup in system.backups() if backup["type"] == "full"]
    assert (said["backup set used"], said["new full backup"]) == (labels[0], labels[-1])
    assert re.search(r"plan \d+, stop \d+, wipe \d+, restore \d+, recovery \d+, start \d+, backup \d+", said["seconds"])
    assert marker(system) is None
    assert system.control("status").returncode == 0
    # Clients that came back after recovery were not thrown out again.
    assert system.sql("SELECT pg_postmaster_start_time()") == (tmp_path / "recovered").read_text().strip()


@pytest.mark.parametrize("offset", ["+00", ""])
def test_a_point_in_time(system: Deployment, offset: str) -> None:
    with client(system) as writer:
        writer.wrote()
        target = system.sql("SELECT clock_timestamp() AT TIME ZONE 'UTC'") + offset
        writer.wrote()
        expected = numbers(system, f"pg_xact_commit_timestamp(xmin) <= timestamptz '{target}'")
        result = system.control("restore", TOKEN, "time", target)
        writer.wrote()
    assert result.returncode == 0, result.stderr
    assert ("no UTC offset" in result.stderr) is (offset == "")
    rows = numbers(system)
    undone = [n for n in writer.acknowledged if n > max(expected) and n not in rows]
    after = [n for n in rows if n > max(expected)]
    assert rows == expected + after
    assert undone
    assert min(after) > max(undone)
    assert set(writer.acknowledged[-3:]) <= set(after)
    said = summary(result.stdout)
    assert said["restored to"] == f"time {target}"
    assert said["reached"].startswith("recovery stopping before commit of transaction ")


def test_a_later_time_after_an_earlier_one(system: Deployment) -> None:
    """The first try went back too far: the second follows the timeline on which that moment was."""
    system.sql("CREATE TABLE attempt (n int); INSERT INTO attempt VALUES (1)")
    early = system.sql("SELECT clock_timestamp()")
    system.sql("INSERT INTO attempt VALUES (2)")
    late = system.sql("SELECT clock_timestamp()")
    system.sql("INSERT INTO attempt VALUES (3)")
    rows = "SELECT string_agg(n::text, ' ' ORDER BY n) FROM attempt"
    for target, expected in ((early, "1"), (late, "1 2")):
        result = system.control("restore", TOKEN, "time", target)
        assert result.returncode == 0, result.stderr
        assert system.sql(rows) == expected
    assert "an older history: the newest is" in result.stderr


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (["time", "2001-01-01 00:00:00+00"], 4),
        (["time", "yesterday"], 2),
        (["lsn", "FFFF/0"], 4),
        (["xid", "4000000000"], 4),
        (["name", "nowhere"], 4),
        (["set", "20010101-000000F"], 4),
        (["time"], 2),
        (["sometime", "2026-01-15 21:30:00"], 2),
        (["time", "2026-01-15", "21:30:00"], 2),
    ],
)
def test_a_target_that_cannot_be_reached(system: Deployment, target: list[str], code: int) -> None:
    """It is refused while everything runs, and everything goes on running."""
    before, containers = started(system), {name: entry["Id"] for name, entry in system.containers().items()}
    result = system.control("restore", TOKEN, *target)
    assert result.returncode == code, result.stderr
    assert "HINT: " in result.stderr
    assert started(system) == before
    wait_for(lambda: {name: entry["Id"] for name, entry in system.containers().items()} == containers)
    assert all(entry["State"]["Running"] for entry in system.containers().values())
    assert marker(system) is None


def test_an_unreachable_repository(system: Deployment) -> None:
    before = started(system)
    system.must("docker", "compose", "exec", "-T", "pgbackrest", "chmod", "0", "/var/lib/pgbackrest/backup")
    try:
        result = system.control("restore", TOKEN)
    finally:
        system.must("docker", "compose", "exec", "-T", "pgbackrest", "chmod", "0750", "/var/lib/pgbackrest/backup")
    assert result.returncode == 4, result.stderr
    assert started(system) == before


def test_a_second_restore_is_turned_away(system: Deployment, tmp_path: Path) -> None:
    """Nor can the services of a restore be run by hand while the database runs."""
    guard = f"{system.project}-restore"
    system.must("docker", "compose", "run", "--detach", "--no-deps", "--name", guard, "--entrypoint", "sleep",
                "pgbackrest_restore", "60")  # fmt: skip
    before = started(system)
    try:
        result = system.control("restore", TOKEN)
    finally:
        system.must("docker", "rm", "--force", guard)
    assert result.returncode == 3
    assert f"docker stop {guard}" in result.stderr
    for service in ("database_wipe", "pgbackrest_restore"):
        assert system.compose("run", "--rm", "-T", service, TOKEN).returncode == 3
    assert started(system) == before
    assert system.sql("SELECT count(*) FROM ledger")


def test_postgresql_refuses_the_recovery(system: Deployment, tmp_path: Path) -> None:
    """A WAL segment is lost while the restore runs: PostgreSQL's words are passed on, and the database stays down."""
    system.sql("CREATE TABLE aim (n int); INSERT INTO aim VALUES (1)")
    target = system.sql("SELECT clock_timestamp()")
    # By its own word: the check worker may switch to the next segment at any time.
    segment = system.sql("INSERT INTO aim VALUES (2) RETURNING pg_walfile_name(pg_current_wal_insert_lsn())")
    system.sql("SELECT pg_switch_wal()")
    path = f"/var/lib/pgbackrest/archive/iop/17-1/{segment[:16]}/{segment}-*"
    wait_for(
        lambda: system.exec("pgbackrest", "sh", "-c", f"ls {path}").returncode == 0, what="the segment's archiving"
    )
    archived = system.exec("pgbackrest", "sh", "-c", f"ls {path}").stdout.strip()
    kept = "/var/lib/pgbackrest/kept"
    core = f"{system.project}-pgbackrest-1"
    spy = spied_docker(tmp_path, f'*" up --detach database "*) "$real" exec {core} mv {archived} {kept} ;;')

    result = system.run(system.directory / "control.sh", "restore", TOKEN, "time", target, PATH=spy)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "PostgreSQL refused the recovery" in result.stderr
    assert "FATAL:  recovery ended before configured recovery target was reached" in result.stderr
    assert system.health("database") == "exited"
    assert (marker(system) or {})["stage"] == "failed"
    screen = system.control("status")
    assert (screen.returncode, "stage failed" in screen.stdout) == (1, True)
    up = system.control("up")
    assert (up.returncode, "restore is unfinished" in up.stderr) == (1, True), up.stderr
    assert system.health("database") != "healthy"

    system.must("docker", "compose", "exec", "-T", "pgbackrest", "mv", kept, archived)
    result = system.control("restore", TOKEN, "time", target)
    assert result.returncode == 0, result.stderr
    assert system.sql("SELECT sum(n) FROM aim") == "1"
