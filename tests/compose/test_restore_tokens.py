"""The confirmation token of a restore: whatever is not exactly the token, in the first place, touches nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import ROOT, TOKEN, Deployment, deployment, wait_for
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from restoring import inventory

WRONG = {
    "missing": [],
    "empty": [""],
    "one character different": [f"{TOKEN[:-1]}B"],
    "one character less": [TOKEN[:-1]],
    "one character more": [f"{TOKEN}A"],
    "space before": [f" {TOKEN}"],
    "space after": [f"{TOKEN} "],
    "line end after": [f"{TOKEN}\n"],
    "lower case": [TOKEN.lower()],
    "second place": ["time", TOKEN],
    "last place": ["time", "2026-01-15 21:30:00", TOKEN],
    "behind an option": ["--force", TOKEN],
    "a pattern": ["I_UNDERSTAND_*"],
    "everything's pattern": ["*"],
    "the other confirmation": ["I_UNDERSTAND_THIS_WILL_DELETE_ALL_BACKUPS"],
}
DATA = "cd /var/lib/postgresql && find data/base -type f -exec sha256sum {} + | sort; ls -A; ls data data/pg_wal"

CHARACTERS = st.characters(exclude_characters="\0", codec="utf-8")  # what an argument can hold


class Control:
    """control.sh alone, with a docker in PATH that notes every call."""

    def __init__(self, directory: Path) -> None:
        shutil.copy2(ROOT / "control.sh", directory)
        shutil.copytree(ROOT / "control", directory / "control")
        self.directory, self.called = directory, directory / "called"
        docker = directory / "bin" / "docker"
        docker.parent.mkdir()
        docker.write_text(f'#!/bin/bash\necho "$*" >>{self.called}\nexit 1\n')
        docker.chmod(0o755)

    def restore(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.directory / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            [self.directory / "control.sh", "restore", *arguments],
            env={**os.environ, "PATH": path, **environment},
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Control:
    return Control(tmp_path_factory.mktemp("control"))


def mutations() -> st.SearchStrategy[str]:
    """Generate tokens that are nearly right."""
    place, character = st.integers(0, len(TOKEN)), CHARACTERS
    return st.one_of(
        st.builds(lambda at, what: TOKEN[:at] + what + TOKEN[at:], place, character),
        st.builds(lambda at, what: TOKEN[:at] + what + TOKEN[at + 1 :], place, character),
        st.builds(lambda at: TOKEN[:at], place),
        st.builds(lambda at: TOKEN[at:], place),
        st.builds(lambda at: TOKEN[:at] + TOKEN[at:].lower(), place),
        st.builds(lambda at: TOKEN[:at] + TOKEN[at : at + 1].swapcase() + TOKEN[at + 1 :], place),
        st.builds(lambda at: TOKEN[:at] + TOKEN[at:].translate(str.maketrans("AEIOT", "АЕІОТ")), place),
        st.builds(
            lambda before, after: f"{before}{TOKEN}{after}", *[st.sampled_from(["", " ", "\n", "\t", "'", '"'])] * 2
        ),
    )


def anything() -> st.SearchStrategy[str]:
    return st.text(CHARACTERS, max_size=60)


@given(first=st.one_of(mutations(), anything()), rest=st.lists(st.one_of(st.just(TOKEN), anything()), max_size=2))
@settings(max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(first="", rest=[TOKEN])
@example(first="=", rest=[TOKEN])
@example(first="(", rest=["=", TOKEN])
def test_a_thousand_wrong_tokens_never_get_as_far_as_docker(control: Control, first: str, rest: list[str]) -> None:
    if first == TOKEN:
        return
    result = control.restore(first, *rest)
    assert result.returncode == 2
    assert not control.called.exists()
    assert len(first) < 8 or first in TOKEN or first not in result.stderr, "what was given is repeated"


def test_the_right_token_does(control: Control) -> None:
    """Or the test above would prove nothing."""
    control.restore(TOKEN)
    assert control.called.exists()
    control.called.unlink()


@pytest.mark.parametrize("shell", ["nocasematch", "extglob:nocasematch"])
def test_options_of_the_shell_do_not_soften_the_comparison(control: Control, shell: str) -> None:
    assert control.restore(TOKEN.lower(), BASHOPTS=shell).returncode == 2
    assert not control.called.exists()


@pytest.mark.parametrize(
    ("line", "environment", "token"),
    [
        ("", {"IOP_RESTORE_TOKEN": "from-environment"}, "from-environment"),
        ("", {"IOP_RESTORE_TOKEN": ""}, TOKEN),
        ("IOP_RESTORE_TOKEN=", {}, TOKEN),
        ("IOP_RESTORE_TOKEN=from-file", {}, "from-file"),
        ("IOP_RESTORE_TOKEN=first\nexport IOP_RESTORE_TOKEN='the last one' # comment", {}, "the last one"),
        ('IOP_RESTORE_TOKEN = "with spaces"', {}, "with spaces"),
        ("IOP_RESTORE_TOKEN=bare # comment", {}, "bare"),
        ("#IOP_RESTORE_TOKEN=commented\nX_IOP_RESTORE_TOKEN=other", {}, TOKEN),
        ("IOP_RESTORE_TOKEN=from-file", {"IOP_RESTORE_TOKEN": "from-environment"}, "from-environment"),
        ("IOP_RESTORE_TOKEN=from-file", {"IOP_RESTORE_TOKEN": ""}, TOKEN),
    ],
)
def test_a_variable_replaces_the_token(control: Control, line: str, environment: dict[str, str], token: str) -> None:
    (control.directory / ".env").write_text(f"{line}\n")
    for wrong in {TOKEN, "from-file", "from-environment", "first", "commented", f"{token} "} - {token}:
        assert control.restore(wrong, **environment).returncode == 2
        assert not control.called.exists()
    control.restore(token, **environment)
    assert control.called.exists()
    control.called.unlink()
    (control.directory / ".env").unlink()


@pytest.fixture(scope="module")
def system() -> Iterator[Deployment]:
    """Give a system that is quiet, so that each changed byte counts: nothing but a restore could change one."""
    with deployment(PGBACKREST_CHECK_FREQUENCY="3600") as it:
        assert it.control("up").returncode == 0
        wait_for(it.backups, what="the first backup")
        it.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
        for setting in ("archive_timeout = 0", "autovacuum = off", "checkpoint_timeout = '1d'"):
            it.sql(f"ALTER SYSTEM SET {setting}")
        it.sql("SELECT pg_reload_conf()")
        it.must("docker", "compose", "stop", "pgbackrest_check", "pgbackrest_backup")
        it.sql("CHECKPOINT")
        segment = it.sql("SELECT pg_walfile_name(pg_switch_wal())")
        wait_for(lambda: it.sql("SELECT last_archived_wal FROM pg_stat_archiver") == segment, what="a quiet archive")
        it.sql("CHECKPOINT")
        yield it


def everything(system: Deployment) -> tuple[str, ...]:
    """Return what must not change: since when the server runs, its data directory, the repository."""
    return (
        system.sql("SELECT pg_postmaster_start_time(), count(*) FROM t"),
        system.must("docker", "compose", "exec", "-T", "pgbackrest", "sh", "-c", DATA),
        inventory(system),
    )


def test_nothing_is_touched_with_a_wrong_token(system: Deployment) -> None:
    before = everything(system)
    for name, arguments in WRONG.items():
        result = system.control("restore", *arguments)
        assert (name, result.returncode) == (name, 2)
        assert "HINT: " in result.stderr
    assert everything(system) == before


@pytest.mark.parametrize("service", ["database_wipe", "pgbackrest_restore"])
def test_nothing_is_touched_by_the_services_themselves(system: Deployment, service: str) -> None:
    before = everything(system)
    for name in ("missing", "empty", "space after", "lower case", "second place"):
        result = system.compose("run", "--rm", "-T", service, *WRONG[name])
        assert (name, result.returncode) == (name, 2), result.stderr
    assert everything(system) == before


def test_also_while_the_database_is_stopped(system: Deployment) -> None:
    """Then only the token is in the way."""
    system.must("docker", "compose", "stop", "database")
    look = ("docker", "compose", "exec", "-T", "pgbackrest", "sh", "-c", DATA)
    before = system.must(*look), inventory(system)
    for service in ("database_wipe", "pgbackrest_restore"):
        assert system.compose("run", "--rm", "-T", service, f"{TOKEN[:-1]}a").returncode == 2
    assert system.control("restore", TOKEN.lower()).returncode == 2
    assert (system.must(*look), inventory(system)) == before
    system.must("docker", "compose", "start", "database")
    wait_for(lambda: system.health("database") == "healthy")
    assert system.sql("SELECT count(*) FROM t") == "1000"
