"""Sentences of docs/system.md on the deployed system that no other test has: after ``up``, with no other help."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import yaml
from deployment import ROOT, TOKEN, Deployment, deployment, wait_for

pytestmark = pytest.mark.integration

PAGE = (ROOT / "docs" / "system.md").read_text(encoding="utf-8")
REPOSITORY = "/var/lib/pgbackrest"
MOUNTS = {REPOSITORY: "pg_backrest_repo", "/var/spool/pgbackrest": "pg_backrest_spool"}
SMALL = {
    "services": {
        name: {"environment": {"PGBACKREST_ARCHIVE_TIMEOUT": "8"}} for name in ("pgbackrest_backup", "pgbackrest_check")
    },
    "volumes": {
        "pg_backrest_repo": {"driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": "size=48m,uid=999,mode=0750"}}
    },
}


@pytest.fixture(scope="module")
def system() -> Iterator[Deployment]:
    """Give a deployed system on which nothing but ``up`` was called."""
    settings = {"DATABASE_BACKUP_FREQUENCY": "4", "IOP_FULL_BACKUP_AGE": "12", "PGBACKREST_CHECK_FREQUENCY": "2"}
    with deployment(**settings) as it:
        result = it.control("up")
        assert result.returncode == 0, result.stdout + result.stderr
        yield it


def state(system: Deployment, worker: str) -> dict[str, Any]:
    """Return what a worker has written of itself."""
    found: dict[str, Any] = json.loads(
        system.exec(f"pgbackrest_{worker}", "cat", f"/var/lib/iop-backup/{worker}.json").stdout
    )
    return found


def ran_twice(system: Deployment, worker: str) -> bool:
    """Tell whether a worker has ended two runs."""
    return int(state(system, worker)["runs"]) > 1


def archived(system: Deployment, segment: str) -> bool:
    """Tell whether the repository has a WAL segment."""
    found = system.exec("pgbackrest", "find", f"{REPOSITORY}/archive", "-name", f"{segment}-*").stdout
    return segment in found


def check(system: Deployment) -> tuple[int, dict[str, str]]:
    """Run check.sh; return its exit code, and its lines by name of check."""
    result = system.exec("pgbackrest_check", "/pgbackrest/check.sh")
    return result.returncode, {line.split()[1]: line for line in result.stdout.splitlines()}


def example(command: str) -> str:
    """Return the page's line of code that begins so."""
    (line,) = re.findall(rf"^{re.escape(command)}$", PAGE, re.MULTILINE)
    return str(line)


# Backups


def test_every_component_runs(system: Deployment) -> None:
    """By what they do: a server that archives, a stanza that was made, workers at their schedules, a volume."""
    assert system.sql("SELECT current_setting('archive_mode'), current_setting('wal_level')") == "on|replica"
    assert system.exec("pgbackrest", "pgbackrest", "info").returncode == 0
    for worker in ("backup", "check"):
        wait_for(partial(ran_twice, system, worker), what=f"runs of the {worker} worker")
    for container in system.containers().values():
        mounts = {mount["Destination"]: mount.get("Name") for mount in container["Mounts"]}
        assert {place: mounts[place] for place in MOUNTS} == {
            place: f"{system.project}_{name}" for place, name in MOUNTS.items()
        }


def test_backups_of_both_kinds_come_by_themselves_at_the_frequency(system: Deployment) -> None:
    def kinds() -> list[str]:
        return [entry["type"] for entry in system.backups()]

    wait_for(lambda: kinds().count("full") > 1, 90, "a second full backup")
    found = system.backups()
    assert found[0]["type"] == "full"
    assert kinds()[1] == "diff"
    starts = [entry["timestamp"]["start"] for entry in found]
    assert min(later - earlier for earlier, later in pairwise(starts)) >= 3, starts  # told in whole seconds


def test_the_frequency_follows_its_variable_and_no_script_is_edited(system: Deployment) -> None:
    scripts = {path.name: path.read_bytes() for path in (system.directory / "pgbackrest").iterdir() if path.is_file()}
    before = {name: system.containers()[name]["Id"] for name in ("database", "pgbackrest")}
    assert state(system, "backup")["frequency"] == 4
    system.configure({"DATABASE_BACKUP_FREQUENCY": "7"})
    assert system.control("up").returncode == 0
    wait_for(lambda: state(system, "backup")["frequency"] == 7, what="the new frequency")
    environment = dict(
        entry.split("=", 1) for entry in system.containers()["pgbackrest_backup"]["Config"]["Env"] if "=" in entry
    )
    assert environment["PGBACKREST_FREQUENCY"] == "7"
    assert {name: system.containers()[name]["Id"] for name in before} == before
    assert {name: (system.directory / "pgbackrest" / name).read_bytes() for name in scripts} == scripts


def test_the_example_configuration_is_the_workers() -> None:
    """Its lines stand in compose.yaml to the letter, and Compose gives them to the backup worker."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    promised = yaml.safe_load(block)["environment"]
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    worker = yaml.safe_load(text)["services"]["pgbackrest_backup"]["environment"]
    assert promised == {name: worker[name] for name in promised}
    for line in block.splitlines()[1:]:
        assert line.strip() in [found.strip() for found in text.splitlines()]


# WAL


def test_what_was_committed_survives_the_loss_of_power_because_it_is_in_the_wal(system: Deployment) -> None:
    """WAL is on disk when a commit returns; the server is killed then, and replays it."""
    names = ("fsync", "synchronous_commit", "full_page_writes")
    settings = ", ".join(f"current_setting('{name}')" for name in names)
    assert system.sql(f"SELECT {settings}") == "on|on|on"
    system.sql("DROP TABLE IF EXISTS committed; CREATE TABLE committed (n int); CHECKPOINT")
    for n in range(3):
        script = (
            f"INSERT INTO committed VALUES ({n}) RETURNING pg_current_wal_insert_lsn() AS lsn \\gset\n"
            "SELECT pg_current_wal_flush_lsn() > :'lsn';\n"
        )
        written = system.run("docker", "compose", "exec", "-T", "database", "psql", "-XAtq", stdin=script)
        assert written.stdout == "t\n", written.stderr
        system.must("docker", "compose", "kill", "--signal", "KILL", "database")
        system.must("docker", "compose", "up", "--detach", "--wait", "database")
        assert system.log("database").count("automatic recovery in progress") > n
        assert system.sql("SELECT count(*) FROM committed") == str(n + 1)


def test_completed_wal_is_forwarded_by_itself_and_nobody_waits_for_it(system: Deployment) -> None:
    """Neither of the workers runs: both would end a segment. A second suffices here instead of archive_timeout's 60."""
    assert system.sql("SHOW archive_timeout") == "1min"
    system.must("docker", "compose", "stop", "pgbackrest_check", "pgbackrest_backup")
    system.sql("ALTER SYSTEM SET archive_timeout = 1")
    system.sql("SELECT pg_reload_conf()")
    try:
        system.sql("CREATE TABLE IF NOT EXISTS written (n int)")
        for _ in range(2):
            segment = system.sql(
                "INSERT INTO written VALUES (1) RETURNING pg_walfile_name(pg_current_wal_insert_lsn())"
            )
            wait_for(partial(archived, system, segment), 20, "the segment in the repository")
        # A commit does not wait for the archive.
        system.sql("ALTER SYSTEM SET archive_command = 'sleep 600'")
        system.sql("SELECT pg_reload_conf()")
        for _ in range(3):
            system.sql("INSERT INTO written VALUES (2); SELECT pg_switch_wal()")
        assert system.sql("SELECT count(*) FROM written WHERE n = 2") == "3"
    finally:
        system.sql("ALTER SYSTEM RESET ALL")
        system.sql("SELECT pg_reload_conf()")
        system.exec("database", "pkill", "-x", "sleep")
        system.must("docker", "compose", "start", "pgbackrest_check", "pgbackrest_backup")


# The repository


def test_the_repository_holds_all_that_a_restore_needs_and_outlives_the_containers(system: Deployment) -> None:
    system.configure({"DATABASE_BACKUP_FREQUENCY": "3600", "IOP_FULL_BACKUP_AGE": "604800"})
    assert system.control("up").returncode == 0
    wait_for(lambda: system.control("backup", "diff").returncode == 0, what="a backup, when the worker takes none")
    backups = [(entry["label"], entry["type"]) for entry in system.backups()]
    assert {kind for _, kind in backups} == {"full", "diff"}

    def listing() -> set[str]:
        """Return all finished files; what is half written goes, or gets its name."""
        argv = (
            "run",
            "--rm",
            "-T",
            "--no-deps",
            "--entrypoint",
            "find",
            "pgbackrest_restore",
            REPOSITORY,
            "-type",
            "f",
            "!",
            "-name",
            "*.pgbackrest.tmp",
        )
        return set(system.compose(*argv).stdout.split())

    held = listing()
    for label, _ in backups:
        assert any(f"/backup/iop/{label}/bundle/" in path for path in held), label
        assert f"{REPOSITORY}/backup/iop/{label}/backup.manifest" in held
    assert {f"{REPOSITORY}/{part}/iop/{part}.info" for part in ("archive", "backup")} <= held
    assert any(re.search(r"/archive/iop/17-1/\w{16}/[0-9A-F]{24}-[0-9a-f]{40}\.zst$", path) for path in held)
    assert system.control("down").returncode == 0
    still = listing()
    assert system.control("up").returncode == 0
    assert held <= still
    assert [(entry["label"], entry["type"]) for entry in system.backups()][: len(backups)] == backups


def test_a_repository_of_another_owner_is_detected(system: Deployment) -> None:
    """As after a volume was copied back by root. Both workers say so; mended, both are content again."""
    image = system.containers()["pgbackrest"]["Config"]["Image"]
    volume = f"{system.project}_pg_backrest_repo:{REPOSITORY}"
    give = ("docker", "run", "--rm", "--user", "0", "--volume", volume, "--entrypoint", "chown", image, "-R")
    assert check(system)[0] == 0
    system.must(*give, "0:0", REPOSITORY)
    try:
        code, lines = check(system)
        assert code == 2
        assert re.match("CRITICAL .*(Permission denied|no right to write)", lines["repository"]), lines
        failed = system.control("backup")
        assert (failed.returncode != 0, "ermission denied" in failed.stdout + failed.stderr) == (True, True)
    finally:
        system.must(*give, "999:999", REPOSITORY)
    wait_for(lambda: check(system)[0] == 0, what="content again")


@pytest.mark.parametrize("worker", ["backup", "check"])
def test_a_script_that_is_not_in_the_mounted_directory_is_missed_at_once(system: Deployment, worker: str) -> None:
    script = system.directory / "pgbackrest" / f"{worker}.sh"
    away = script.rename(system.directory / script.name)
    try:
        system.compose("restart", "--no-deps", f"pgbackrest_{worker}")
        wait_for(lambda: f"'/pgbackrest/{worker}.sh' is not there" in system.log(f"pgbackrest_{worker}"), 30, "a word")
        assert system.health(f"pgbackrest_{worker}") != "healthy"
        assert system.control("status").returncode == 1
    finally:
        away.rename(script)
    wait_for(lambda: system.health(f"pgbackrest_{worker}") == "healthy", 90, "healthy again")


# Restores, by the page's own words


def test_the_examples_are_commands_that_work_even_if_only_the_repository_is_left(system: Deployment) -> None:
    latest = example('./control.sh restore "I_UNDERSTAND_THIS_WILL_DELETE_DATABASE_DATA"')
    moment = example(f'{latest} time "2026-01-15 21:30:00"')
    system.sql("DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    began = datetime.fromisoformat(system.sql("SELECT clock_timestamp() AT TIME ZONE 'UTC'"))
    assert system.sql("SELECT count(*) FROM kept") == "1000"

    # The moment of the second example is not in this repository: its words are understood, and refused.
    refused = system.run("bash", "-c", moment)
    assert (refused.returncode, system.sql("SELECT count(*) FROM kept")) == (4, "1000"), refused.stderr
    system.sql("DELETE FROM kept WHERE n > 1")
    undone = system.run("bash", "-c", moment.replace("2026-01-15 21:30:00", str(began)))
    assert undone.returncode == 0, undone.stderr
    assert system.sql("SELECT count(*), sum(n) FROM kept") == "1000|500500"

    segment = system.sql("SELECT pg_walfile_name(pg_switch_wal())")
    wait_for(lambda: archived(system, segment), what="the last segment")
    assert system.control("down").returncode == 0
    volumes = [f"{system.project}_{name}" for name in ("database_data", "database_socket", "pg_backrest_spool",
                                                       "pg_backrest_state")]  # fmt: skip
    system.must("docker", "volume", "rm", *volumes)
    restored = system.run("bash", "-c", latest)
    assert restored.returncode == 0, restored.stderr
    assert system.sql("SELECT count(*), sum(n) FROM kept") == "1000|500500"
    assert {system.health(name) for name in ("database", "pgbackrest_backup")} == {"healthy"}


def test_the_helper_services_replace_corrupted_database_files(system: Deployment) -> None:
    """By hand, with Compose alone: the data directory is emptied by the one, and filled by the other."""

    def data() -> set[str]:
        return set(system.exec("pgbackrest", "ls", "/var/lib/postgresql/data").stdout.split())

    system.sql("DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT generate_series(1, 10) AS n; CHECKPOINT")
    file = system.sql("SELECT '/var/lib/postgresql/data/' || pg_relation_filepath('kept')")
    segment = system.sql("SELECT pg_walfile_name(pg_switch_wal())")
    wait_for(lambda: archived(system, segment), what="the last segment")
    system.must("docker", "compose", "stop", "pgbackrest_check", "pgbackrest_backup", "database")
    noise = "head --bytes=4096 /dev/urandom"
    assert system.exec("pgbackrest", "sh", "-c", f"{noise} | dd of={file} bs=4096 conv=notrunc").returncode == 0
    system.must("docker", "compose", "up", "--detach", "--wait", "database")
    assert "invalid page in block 0" in system.exec("database", "psql", "-c", "SELECT * FROM kept").stderr

    system.must("docker", "compose", "stop", "database")
    system.must("docker", "compose", "run", "--rm", "-T", "database_wipe", TOKEN)
    assert data() == set()
    system.must("docker", "compose", "run", "--rm", "-T", "pgbackrest_restore", TOKEN)
    assert {"PG_VERSION", "base", "recovery.signal"} <= data()
    # As ./control.sh restore does: with `--wait`, Compose gives up where the core service, which looks at the cluster
    # every few seconds, has not yet seen that it is back.
    system.must("docker", "compose", "up", "--detach", "database")
    both = ("database", "pgbackrest")
    wait_for(lambda: {system.health(name) for name in both} == {"healthy"}, what="both services to be healthy")
    wait_for(lambda: system.sql("SELECT pg_is_in_recovery()") == "f", what="the end of recovery")
    assert system.sql("SELECT count(*) FROM kept") == "10"
    system.must("docker", "compose", "up", "--detach")


# Disk space


@pytest.fixture(scope="module")
def small() -> Iterator[Deployment]:
    """Give a system whose repository has 48 MiB, and that does not wait a minute for WAL to get there."""
    with deployment(PGBACKREST_CHECK_FREQUENCY="2") as it:
        (it.directory / "compose.override.yaml").write_text(json.dumps(SMALL))
        result = it.control("up")
        assert result.returncode == 0, result.stdout + result.stderr
        wait_for(it.backups, what="the first backup")
        yield it


def test_a_full_repository_is_detected(small: Deployment) -> None:
    filler = f"{REPOSITORY}/filler"
    wait_for(lambda: check(small)[0] == 0, what="a content check")
    full = small.exec("pgbackrest", "sh", "-c", f"cat /dev/zero >{filler}")
    assert "No space left on device" in full.stderr
    try:
        code, lines = check(small)
        assert code == 2
        assert lines["wal-archiving"].startswith("CRITICAL"), lines
        assert re.match("CRITICAL .*repository.* bytes are free", lines["space"]), lines
        assert small.control("backup").returncode != 0
        wait_for(lambda: small.health("pgbackrest_check") == "unhealthy", 30, "the check is unhealthy")
        assert "No space left on device" in small.log("database")
    finally:
        small.exec("pgbackrest", "rm", filler)
    wait_for(lambda: check(small)[0] == 0, 60, "a content check")
    assert small.control("backup").returncode == 0
