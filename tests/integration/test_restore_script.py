"""``restore.sh``: its token, its stages, and what is left when it is killed in one of them."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pgbackrest_system import runs, wait_for
from restore_system import TOKEN, Restoring, history, inventory

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def made() -> Iterator[Restoring]:
    with history() as restoring:
        yield restoring


@pytest.fixture
def past(made: Restoring) -> Restoring:
    made.reset()
    return made


# The token

# Greek, Cyrillic and full-width letters.
ALIKE = {"I": "Ι", "A": "А", "E": "Е", "_": "＿", "T": "Т", "O": "О"}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
POSITION = st.integers(0, len(TOKEN) - 1)
WRONG = st.one_of(
    TEXT,
    POSITION.map(lambda n: TOKEN[:n]),
    POSITION.map(lambda n: TOKEN[:n] + TOKEN[n].swapcase() + TOKEN[n + 1 :]),
    POSITION.map(lambda n: TOKEN[:n] + TOKEN[n + 1 :]),
    st.sampled_from(sorted(ALIKE)).map(lambda letter: TOKEN.replace(letter, ALIKE[letter], 1)),
    st.tuples(
        st.sampled_from(["", " ", "\t", "\n", "\u00a0", "\u200b", "*"]), st.sampled_from(["", " ", "\n", "?"])
    ).map(lambda around: around[0] + TOKEN + around[1]),
    st.sampled_from(
        ["*", "?" * len(TOKEN), f"{TOKEN[0]}*", TOKEN.lower(), f"'{TOKEN}'", "--help", "--", "$IOP_RESTORE_TOKEN"]
    ),
    st.tuples(TEXT, TEXT).map(lambda parts: parts[0] + TOKEN + parts[1]),
).filter(lambda token: token != TOKEN)


@settings(max_examples=1000)
@given(action=st.sampled_from(["wipe", "restore"]), token=WRONG, before=st.lists(TEXT, max_size=2), right=st.booleans())
def check_token(past: Restoring, action: str, token: str, before: list[str], *, right: bool) -> None:
    """Give a wrong token, alone, or with the right one in another place."""
    arguments = [token, *before, *([TOKEN] if right else [])]
    blocked = past.system.run(past.system.scripts / "restore.sh", action, *arguments, BASHOPTS="nocasematch")
    assert (blocked.returncode, blocked.stdout) == (2, "")
    assert "the confirmation token is missing or wrong\nNothing was touched." in blocked.stderr
    assert len(token) < 20 or token not in blocked.stderr
    assert (past.system.data / "PG_VERSION").exists()
    assert not past.marker.exists()


def test_a_thousand_wrong_tokens_delete_nothing(past: Restoring) -> None:
    before = inventory(*past.places())
    check_token(past)
    assert inventory(*past.places()) == before


@pytest.mark.parametrize("arguments", [(), ("wipe",), ("restore",), (TOKEN,), ("destroy", TOKEN), (TOKEN, "wipe")])
def test_too_few_or_misplaced_arguments_are_blocked(past: Restoring, arguments: tuple[str, ...]) -> None:
    before = inventory(*past.places())
    assert past.system.run(past.system.scripts / "restore.sh", *arguments).returncode == 2
    assert inventory(*past.places()) == before


def test_a_variable_replaces_the_token(past: Restoring) -> None:
    script = past.system.scripts / "restore.sh"
    assert past.sh("wipe", IOP_RESTORE_TOKEN="other words").returncode == 2
    assert past.system.run(script, "wipe", "", IOP_RESTORE_TOKEN="").returncode == 2
    assert past.system.run(script, "wipe", "other", IOP_RESTORE_TOKEN="other words").returncode == 2
    assert (past.system.data / "PG_VERSION").exists()
    past.system.must(script, "wipe", "other words", IOP_RESTORE_TOKEN="other words")
    assert not list(past.system.data.iterdir())
    past.must("wipe", IOP_RESTORE_TOKEN="")


# Refusals


def test_a_running_server_keeps_its_data(past: Restoring) -> None:
    past.system.postgres("start")
    for action in ("wipe", "restore"):
        refused = past.sh(action)
        assert refused.returncode == 3
        assert "a server answers" in refused.stderr
    assert past.system.sql("SELECT count(*) FROM t") == "7"


def test_a_held_lock_keeps_the_data(past: Restoring) -> None:
    before = inventory(*past.places())
    with Path(f"{past.system.data}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for action in ("wipe", "restore"):
            refused = past.sh(action)
            assert refused.returncode == 3
            assert "is in use" in refused.stderr
    assert inventory(*past.places()) == before


def test_a_directory_with_data_is_not_restored_over(past: Restoring) -> None:
    before = inventory(*past.places())
    refused = past.sh("restore")
    assert refused.returncode == 3
    assert "HINT: empty it first: docker compose run --rm database_wipe TOKEN" in refused.stderr
    assert inventory(*past.places()) == before


@pytest.mark.parametrize("place", ["", "/", "data", "strange"])
def test_only_a_data_directory_is_emptied(past: Restoring, place: str) -> None:
    strange = past.system.root / "strange"
    strange.mkdir(exist_ok=True)
    (strange / "photo").touch()
    strange.chmod(0o777)
    refused = past.sh("wipe", PGDATA=str(strange) if place == "strange" else place)
    assert refused.returncode == 2
    assert "HINT: " in refused.stderr
    assert (strange / "photo").exists()


def test_wipe_takes_the_token_alone(past: Restoring) -> None:
    assert past.sh("wipe", "now").returncode == 2
    assert (past.system.data / "PG_VERSION").exists()


# Stages


def test_links_are_deleted_and_their_places_left(past: Restoring) -> None:
    place = past.system.root / "tablespace"
    past.system.must("mkdir", "-p", place)
    past.system.must("touch", place / "kept")
    past.system.must("ln", "-s", place, past.system.data / "pg_tblspc" / "16400")
    wiped = past.sh("wipe")
    assert wiped.returncode == 0
    assert f"{place} itself was not emptied" in wiped.stderr
    assert (place / "kept").exists()
    assert not list(past.system.data.iterdir())


def test_the_segment_that_a_crash_left_is_kept_aside(past: Restoring) -> None:
    with (past.system.data / "postgresql.conf").open("a") as file:
        file.write("archive_command = 'false'\n")
    past.system.postgres("start")
    past.commit(8)
    past.system.sql("SELECT pg_switch_wal()")
    past.commit(9)
    past.stop("immediate")
    segments = [past.commits[8].segment, past.commits[9].segment]
    content = inventory(*(past.system.data / "pg_wal" / name for name in segments))
    past.must("wipe")
    (kept,) = (past.system.root / "data.unarchived").iterdir()
    assert {path.name for path in kept.iterdir()} == set(segments)
    assert sorted(inventory(kept / segments[0], kept / segments[1]).values()) == sorted(content.values())


def test_a_direct_restore_needs_no_plan_and_leaves_no_marker(past: Restoring) -> None:
    past.must("wipe")
    assert past.stage == "wiped"
    past.must("restore", "name", "one")
    assert past.stage is None
    assert past.recover() == [1]


def test_an_experts_options_go_to_pgbackrest_as_they_are(past: Restoring) -> None:
    past.must("wipe")
    label = past.labels[0]
    options = (f"--set={label}", "--type=time", f"--target={past.commits[2].time}", "--target-action=promote")
    past.must("restore", *options)
    assert past.stage is None
    assert past.recover() == [1, 2]


def test_a_refused_recovery_is_planned_anew(past: Restoring) -> None:
    past.must("plan", "xid", str(past.commits[2].xid))
    assert past.sh("fail").returncode == 2
    past.must("wipe")
    past.must("restore", "xid", str(past.commits[2].xid))
    assert past.stage == "restored"
    past.must("fail")
    assert past.stage == "failed"
    assert past.sh("finish").returncode == 2
    # Other words, and still the data directory is not to be started on.
    assert past.must("plan", "xid", str(past.commits[3].xid)) == "wipe\n"
    assert past.stage == "failed"
    past.must("wipe")
    past.must("restore", "xid", str(past.commits[3].xid))
    assert past.recover() == [1, 2, 3]
    past.must("finish")
    past.must("finish")


def test_a_restore_whose_recovery_is_over_is_not_taken_up(past: Restoring) -> None:
    """control.sh was killed at its full backup, and days later somebody gives the same words."""
    words = ("time", past.commits[3].time)
    past.must("plan", *words)
    past.must("wipe")
    past.must("restore", *words)
    signal = past.system.data / "recovery.signal"
    assert signal.exists()
    assert past.must("plan", *words) == "recover\n"
    assert past.recover() == [1, 2, 3]
    assert not signal.exists()
    past.system.sql("DELETE FROM t")
    past.stop()
    assert past.sh("restore", *words).returncode == 3
    planned = past.sh("plan", *words)
    assert (planned.returncode, planned.stdout) == (0, "wipe\n")
    assert "got to its end, but for its full backup: this is a new one" in planned.stderr
    past.must("wipe")
    past.must("restore", *words)
    assert past.recover() == [1, 2, 3]
    past.must("finish")


def test_a_lost_backup_set_is_planned_anew(past: Restoring) -> None:
    past.must("plan")
    past.must("wipe")
    text = past.marker.read_text()
    assert past.labels[1] in text
    past.marker.write_text(text.replace(past.labels[1], "20200101-000000F"))
    past.must("restore")
    assert past.stage == "restored"
    assert past.labels[1] in past.marker.read_text()
    assert past.recover() == list(range(1, 8))


@pytest.mark.parametrize(
    ("action", "program", "stage"),
    [("wipe", "find", "wiping"), ("restore", "pgbackrest", "restoring"), ("restore", "half", "restoring")],
)
def test_a_killed_restore_is_taken_up(past: Restoring, action: str, program: str, stage: str) -> None:
    repository = inventory(past.system.repository)
    words = ("time", past.commits[3].time)
    past.must("plan", *words)
    if action == "restore":
        past.must("wipe")
    slow = {
        "find": ("find", '"$real" "$2"/base -delete 2>/dev/null; rm "$2"/PG_VERSION; exec sleep 600'),
        "pgbackrest": ("pgbackrest", '[[ $1 != restore ]] || exec sleep 600\nexec "$real" "$@"'),
        "half": (
            "pgbackrest",
            '[[ $1 == restore ]] || exec "$real" "$@"\n"$real" "$@"; rm "$PGDATA/global/pg_control"; exec sleep 600',
        ),
    }[program]
    script = past.system.scripts / "restore.sh"
    path = past.system.program(*slow)
    with past.system.started(script, action, TOKEN, *(words if action == "restore" else ()), PATH=path) as (
        process,
        mark,
    ):
        wait_for(lambda: runs(mark, b"sleep\x00600"))
        process.kill()
        process.wait(5)
        # What it has started holds the lock still: nobody gets in between.
        assert past.stage == stage
        assert past.sh("plan", *words).returncode == 3
        assert past.sh(action).returncode == 3
    assert past.stage == stage
    assert past.must("plan", *words) == "wipe\n"
    assert past.stage == stage
    past.must("wipe")
    past.must("restore", *words)
    assert past.stage == "restored"
    assert past.must("plan", *words) == "recover\n"
    past.must("restore", *words)
    assert inventory(past.system.repository) == repository
    assert past.recover() == [1, 2, 3]
    past.must("finish")
    assert past.stage is None


def test_a_killed_restore_goes_on_without_another_wipe(past: Restoring) -> None:
    past.must("wipe")
    past.system.must("touch", past.system.data / "half")
    past.marker.write_text(past.marker.read_text().replace("wiped", "restoring"))
    past.must("restore", "name", "one")
    assert past.recover() == [1]


def test_a_marker_that_cannot_be_read_counts_as_half_a_restore(past: Restoring) -> None:
    past.system.must("rm", past.system.data / "PG_VERSION")
    past.marker.write_text('{"stage": "wi')
    past.must("wipe")
    past.must("restore")
    assert past.recover() == list(range(1, 8))


def test_sigterm_reaches_pgbackrest(past: Restoring) -> None:
    past.must("wipe")
    path = past.system.program(
        "pgbackrest", '[[ $1 != restore ]] || { trap "exit 63" TERM; sleep 600 & wait; }\nexec "$real" "$@"'
    )
    with past.system.started(past.system.scripts / "restore.sh", "restore", TOKEN, PATH=path) as (process, mark):
        wait_for(lambda: runs(mark, b"sleep\x00600"))
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(5) == 63
    assert past.stage == "restoring"
