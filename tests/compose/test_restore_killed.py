"""A restore that is killed at one stage after the other.

Each time status says so, nothing half restored is started, and the same command takes it up again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import TOKEN, Deployment, deployment, wait_for
from restoring import Running, hold_up, marker, spied_docker


@pytest.fixture(scope="module")
def system() -> Iterator[Deployment]:
    with deployment(PGBACKREST_CHECK_FREQUENCY="3600") as it:
        slow = hold_up(it)
        result = it.control("up")
        assert result.returncode == 0, result.stdout + result.stderr
        wait_for(it.backups, what="the first backup")
        it.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        it.sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
        yield it
        for flag in slow.glob("*"):
            if flag.name not in {"find", "pgbackrest"}:
                flag.unlink()


@pytest.fixture
def slow(system: Deployment) -> Path:
    return system.directory / "pgbackrest" / "slow"


def told_stage(system: Deployment, remedy: str = "./control.sh restore TOKEN") -> str:
    """Return what status says of the restore, having checked that it says it is not well."""
    result = system.control("status")
    assert "\nRestore\n" in result.stdout, result.stdout
    assert remedy in result.stdout.replace("\n" + " " * 22, " ")
    return result.stdout.split("\nRestore\n")[1].split("\nBackups\n")[0]


def does_not_start(system: Deployment) -> None:
    """Neither by control.sh nor by Compose alone."""
    system.compose("up", "--detach", "database")
    wait_for(lambda: "a restore is under way or was interrupted" in system.log("database"))
    assert system.exec("database", "pg_isready", "--quiet").returncode != 0
    system.compose("stop", "database")


def test_killed_at_each_stage(system: Deployment, slow: Path, tmp_path: Path) -> None:
    """In a chain: each run is taken up from where the one before was killed, and the last one ends well."""
    hold = tmp_path / "hold"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    path = spied_docker(
        tmp_path,
        f'*" stop pgbackrest_check "*) [[ ! -e {hold}-stop ]] || {{ echo held before stop; sleep 600; }} ;;',
        f'*"=plain up --detach ") [[ ! -e {hold}-start ]] || {{ echo held before start; sleep 600; }} ;;',
        f'*" /pgbackrest/backup.sh full "*) [[ -e {hold}-other ]] || {{ touch {hold}-other; "$real" exec --detach '
        f"{system.project}-pgbackrest_backup-1 /pgbackrest/backup.sh full; until "
        f'"$real" top {system.project}-pgbackrest_backup-1 | grep -q slow/pgbackrest; do sleep 0.1; done; }} ;;',
    )
    server = system.sql("SELECT pg_postmaster_start_time()")

    # Planned: the database still runs, nothing has happened to it.
    (tmp_path / "hold-stop").touch()
    run = Running(system, PATH=path, TMPDIR=str(temporary))
    run.wait_for_output("held before stop")
    run.kill()
    (tmp_path / "hold-stop").unlink()
    assert "stage planned" in told_stage(system)
    assert system.sql("SELECT pg_postmaster_start_time()") == server
    system.sql("INSERT INTO kept VALUES (2)")

    # While the services stop.
    run = Running(system, PATH=path, TMPDIR=str(temporary))
    run.wait_until(lambda: not system.containers()["pgbackrest_check"]["State"]["Running"], "a service stops")
    run.kill()
    assert "stage planned" in told_stage(system)

    # While the data directory is cleared: half of it is gone.
    (slow / "wipe").touch()
    run = Running(system, PATH=path, TMPDIR=str(temporary))
    run.wait_until(lambda: system.exec("pgbackrest", "test", "!", "-e", "/var/lib/postgresql/data/base").returncode == 0
                   and "clearing" in run.output, "half of the data is gone")  # fmt: skip
    run.kill()
    (slow / "wipe").unlink()
    assert "stage wiping" in told_stage(system)
    does_not_start(system)
    up = system.control("up")
    assert (up.returncode, "interrupted" in up.stderr + up.stdout) == (1, True)

    # While pgBackRest restores: half of the files are there. Once by SIGTERM, once by SIGKILL.
    (slow / "restore").touch()
    run = Running(system, PATH=path, TMPDIR=str(temporary))
    run.wait_for_output("half restored")
    assert system.control("restore", TOKEN).returncode == 3
    run.process.send_signal(signal.SIGTERM)
    assert run.end(30) == 128 + signal.SIGTERM, run.output
    assert "the same command takes it up again" in run.output
    wait_for(lambda: not [name for name in names(system) if "-restore" in name], what="the restore's containers end")
    assert "stage restoring" in told_stage(system)
    run = Running(system, PATH=path, TMPDIR=str(temporary))
    run.wait_for_output("half restored")
    run.kill()
    (slow / "restore").unlink()
    assert "stage restoring" in told_stage(system)
    does_not_start(system)

    # In recovery. The files are complete, so the database may start, and goes on with recovery by itself.
    (slow / "archive-get").touch()
    run = Running(system, PATH=path, TMPDIR=str(temporary))
    run.wait_for_output("starting the database")
    run.wait_until(lambda: system.exec("database", "pg_isready").stdout.strip().endswith("rejecting connections"),
                   "recovery")  # fmt: skip
    run.kill()
    assert "stage restored" in told_stage(system)

    # Before the workers start.
    (tmp_path / "hold-start").touch()
    run = Running(system, PATH=path, TMPDIR=str(temporary))
    run.wait_for_output("the files were restored before")
    (slow / "archive-get").unlink()
    run.wait_for_output("held before start")
    run.kill()
    (tmp_path / "hold-start").unlink()
    assert "stage restored" in told_stage(system, "./control.sh backup full")
    assert not system.containers()["pgbackrest_backup"]["State"]["Running"]

    # Recovery is over and people go on working: the same words are a new restore.
    # Its full backup is held up by another one.
    system.sql("INSERT INTO kept VALUES (3)")
    (slow / "backup").touch()
    run = Running(system, PATH=path, TMPDIR=str(temporary))
    run.wait_for_output("got to its end, but for its full backup: this is a new one")
    run.wait_for_output("the backup worker is taking a backup")
    (slow / "backup").unlink()
    assert run.end() == 0, run.output
    assert marker(system) is None
    assert system.sql("SELECT string_agg(n::text, ' ' ORDER BY n) FROM kept") == "1 2 3"
    assert system.sql("SELECT count(*), sum(n) FROM t") == "1000|500500"
    assert system.sql("SELECT timeline_id FROM pg_control_checkpoint()") == "3"
    assert not list(temporary.iterdir())
    assert not [name for name in names(system) if "-restore" in name]
    verify = system.exec("pgbackrest", "pgbackrest", "verify", "--output=text", "--verbose", "--log-level-console=off")
    assert "status: ok" in verify.stdout, verify.stdout
    assert system.control("status").returncode == 0


def names(system: Deployment) -> list[str]:
    """Return the names of all containers of the project that run."""
    label = f"label=com.docker.compose.project={system.project}"
    return system.must("docker", "ps", "--format", "{{.Names}}", "--filter", label).split()
