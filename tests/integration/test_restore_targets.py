"""Each kind of target, against a real server and repository: restored exactly, or refused with nothing touched."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from restore_system import Restoring, archived, history, inventory, make_read_only

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def made() -> Iterator[Restoring]:
    with history("--wal-segsize=1") as restoring:
        yield restoring


@pytest.fixture
def past(made: Restoring) -> Restoring:
    made.reset()
    return made


def words_of(past: Restoring, text: str) -> list[str]:
    """Fill a target's facts in: ``time:3``, ``after:3``, ``xid:6``, ``set:0``; everything else is as it stands."""
    kind, _, value = text.partition(":")
    commit = past.commits.get(int(value)) if value.isdigit() else None
    if commit and kind in {"time", "lsn", "xid"}:
        return [kind, {"time": commit.time, "lsn": commit.after, "xid": str(commit.xid)}[kind]]
    if kind == "set" and value.isdigit():
        return [kind, past.labels[int(value)]]
    return [kind, *([value] if value else [])] if kind else []


@pytest.mark.parametrize(
    ("target", "rows", "backup"),
    [
        ("", 7, 1),
        ("time:3", 3, 0),
        ("time:5", 5, 0),
        ("time:6", 6, 1),
        ("time:7", 7, 1),
        ("lsn:2", 2, 0),
        ("lsn:6", 6, 1),
        ("xid:4", 4, 0),
        ("xid:6", 6, 1),
        ("name:one", 1, 0),
        ("name:six", 6, 1),
        ("set:0", 0, 0),
        ("set:1", 5, 1),
    ],
)
def test_a_target_gives_exactly_its_rows(past: Restoring, target: str, rows: int, backup: int) -> None:
    words = words_of(past, target)
    repository = inventory(past.system.repository)
    label = past.labels[backup]
    assert past.replan(*words)[0] == f"--set={label}"
    make_read_only(past.system.repository)
    past.must("wipe")
    past.must("restore", *words)
    make_read_only(past.system.repository, writable=True)
    assert inventory(past.system.repository) == repository
    assert past.recover() == list(range(1, rows + 1))
    past.must("finish")
    assert past.stage is None
    assert past.system.sql("INSERT INTO t VALUES (99) RETURNING n") == "99"


REFUSALS = [
    ("when:2026-01-15", 2, "wrong target: when"),
    ("time:", 2, "wrong target: time"),
    ("time:2026-01-15 21:30:00 Europe/Berlin", 2, "not a time with a numeric UTC offset"),
    ("time:2026-02-30 21:30:00+00", 2, "is not a time"),
    ("time:2199-01-01 00:00:00+00", 4, "lies in the future"),
    ("time:2026-13-40 00:00:00+00", 2, "no calendar or clock has it"),
    ("xid:0", 2, "no transaction has the number 0"),
    ("time:2020-01-01 00:00:00+00", 4, "the oldest recoverable moment is 20"),
    ("lsn:nowhere", 2, "is not an LSN"),
    ("lsn:0/10", 4, "lies before the end of the oldest backup"),
    ("lsn:FF/0", 4, "lies after all"),
    ("xid:one", 2, "is not a transaction's number"),
    ("xid:3999999999", 4, "does not end in the archived WAL"),
    ("name:oen", 4, "did you mean one?"),
    ("name:it's", 4, "cannot be a target"),
    ("name:twice", 4, "is there twice"),
    ("set:20200101-000000F", 4, "there are: "),
]


def test_a_refused_plan_touches_nothing(past: Restoring) -> None:
    before = inventory(*past.places())
    for target, code, words in REFUSALS:
        refused = past.sh("plan", *words_of(past, target))
        assert (refused.returncode, refused.stdout) == (code, ""), target
        assert words in refused.stderr
        assert "Nothing was touched.\nHINT: " in refused.stderr
        assert inventory(*past.places()) == before, target


def test_a_refused_plan_leaves_the_server_running(past: Restoring) -> None:
    past.system.postgres("start")
    server = (past.system.data / "postmaster.pid").read_text()
    before = inventory(past.system.repository)
    for target, code, words in REFUSALS:
        refused = past.sh("plan", *words_of(past, target))
        assert (refused.returncode, refused.stdout) == (code, ""), target
        assert words in refused.stderr
    assert past.stage is None
    assert (past.system.data / "postmaster.pid").read_text() == server
    assert past.system.sql("SELECT count(*) FROM t") == "7"
    assert inventory(past.system.repository).items() >= before.items()


def test_an_unreachable_repository_is_refused(past: Restoring) -> None:
    past.system.postgres("start")
    away = past.system.repository.rename(past.system.root / "away")
    refused = past.sh("plan")
    away.rename(past.system.repository)
    assert refused.returncode == 4
    assert "missing stanza path (status 1)" in refused.stderr
    assert past.stage is None
    assert past.system.sql("SELECT count(*) FROM t") == "7"


def test_a_time_without_offset_is_utc_and_that_is_said(past: Restoring) -> None:
    at = past.commits[3].time
    planned = past.sh("plan", "time", at.replace(" ", "T").removesuffix("+00"))
    assert planned.returncode == 0
    assert f"has no UTC offset: taken as {at}" in planned.stderr
    assert f"--target={at}" in past.replan("time", at.replace("+00", "Z"))


def test_a_time_after_the_last_commit_of_a_running_server_gives_every_row(past: Restoring) -> None:
    past.system.postgres("start")
    past.commit(8)
    idle = past.system.sql("SELECT clock_timestamp()")
    assert past.restore("time", idle) == list(range(1, 9))


def test_a_restarted_server_has_forgotten_its_last_commit(past: Restoring) -> None:
    past.system.postgres("start")
    assert past.system.sql("SELECT timestamp IS NULL FROM pg_last_committed_xact()") == "t"
    assert "--type=time" in past.replan("time", past.commits[6].time)
    idle = past.replan("time", past.system.sql("SELECT clock_timestamp()"))
    assert idle[1] == "--type=lsn"
    assert idle[3] == "--target-exclusive"


def test_a_commit_that_follows_an_idle_time_is_left_out(past: Restoring) -> None:
    past.system.postgres("start")
    past.commit(8)
    idle = past.system.sql("SELECT clock_timestamp()")
    past.must("plan", "time", idle)
    past.commit(9)
    past.stop()
    past.must("wipe")
    past.must("restore", "time", idle)
    assert past.recover() == list(range(1, 9))


def test_killed_while_the_server_stops_a_restore_to_an_idle_time_is_taken_up(past: Restoring) -> None:
    past.system.postgres("start")
    past.commit(8)
    idle = past.system.sql("SELECT clock_timestamp()")
    planned = past.replan("time", idle)
    past.stop()
    assert past.sh("plan", "time", idle.replace(" ", "T")).returncode == 4  # other words: a plan of its own
    assert past.replan("time", idle) == planned
    assert past.restore("time", idle) == list(range(1, 9))


def test_without_a_target_nothing_that_was_committed_is_lost(past: Restoring) -> None:
    past.system.postgres("start")
    past.commit(8)
    past.must("plan")
    past.stop("immediate")
    past.must("wipe")
    past.must("restore")
    assert past.recover() == list(range(1, 9))


def test_a_stopped_server_cannot_vouch_for_a_time_after_the_archive(past: Restoring) -> None:
    refused = past.sh("plan", "time", time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime()))
    assert refused.returncode == 4
    assert f"the newest recoverable moment is the last transaction there, {past.commits[7].time}" in refused.stderr
    assert past.stage is None


def test_broken_archiving_stops_only_what_needs_the_newest_wal(past: Restoring) -> None:
    with (past.system.data / "postgresql.conf").open("a") as file:
        file.write("archive_command = 'false'\n")
    past.system.postgres("start")
    past.commit(8)
    for target in ([], ["time", past.system.sql("SELECT clock_timestamp()")], ["lsn", past.commits[8].after]):
        refused = past.sh("plan", *target, IOP_ARCHIVE_CHECK_TIMEOUT="1")
        assert refused.returncode == 4
        assert "WAL does not reach the repository" in refused.stderr
        assert past.stage is None
    assert past.sh("plan", "xid", str(past.commits[8].xid), IOP_ARCHIVE_CHECK_TIMEOUT="1").returncode == 4
    # The rows of an unarchived segment are not lost, but kept aside.
    assert past.restore("time", past.commits[3].time) == [1, 2, 3]
    (kept,) = (past.system.root / "data.unarchived").iterdir()
    assert past.commits[8].segment in {file.name for file in kept.iterdir()}


def test_a_hole_is_refused_only_where_it_is_on_the_way(past: Restoring) -> None:
    hole = past.commits[2].segment
    archived(past, hole).unlink()
    before = inventory(*past.places())
    for target in ("time:3", "xid:4"):
        refused = past.sh("plan", *words_of(past, target))
        assert refused.returncode == 4
        assert f"WAL segment {hole} is not in the archive" in refused.stderr
        assert f"still possible: a time before {past.commits[1].time}, or set {past.labels[0]}" in refused.stderr
    assert inventory(*past.places()) == before
    assert past.restore() == list(range(1, 8))


def test_a_damaged_segment_is_noticed_before_anything_is_deleted(past: Restoring) -> None:
    segment = archived(past, past.commits[3].segment)
    damaged = segment.read_bytes()
    other = archived(past, past.commits[6].segment).read_bytes()
    damages = {other: "does not match its checksum", damaged[:-200]: "cannot be unpacked", bytes(4096): "is damaged"}
    for content, words in damages.items():
        segment.write_bytes(content)
        refused = past.sh("plan", "time", past.commits[3].time)
        assert refused.returncode == 4
        assert words in refused.stderr


def test_timelines_that_were_left_are_not_mixed_in(past: Restoring) -> None:
    assert past.restore("time", past.commits[3].time) == [1, 2, 3]
    past.system.sql("INSERT INTO t VALUES (100)")
    past.stop()
    # The differential backup and rows 4 to 7 are of the timeline that was left.
    options = past.replan()
    assert options[:2] == [f"--set={past.labels[0]}", "--target-timeline=2"]
    assert past.restore() == [1, 2, 3, 100]
    past.stop()
    assert past.restore("set", past.labels[1]) == [1, 2, 3, 4, 5]


def test_a_time_is_of_the_timeline_that_was_live_then(past: Restoring) -> None:
    assert past.restore("time", past.commits[3].time) == [1, 2, 3]
    past.commit(100)
    past.commit(101)
    planned = past.sh("plan", "time", past.commits[5].time)
    assert "1, an older history: the newest is 2" in planned.stderr
    assert past.restore("time", past.commits[5].time) == [1, 2, 3, 4, 5]  # timeline 3, from 1
    past.commit(200)
    assert past.restore("time", past.commits[100].time) == [1, 2, 3, 100]  # timeline 4, from 2
    assert past.restore("time", past.commits[200].time) == [1, 2, 3, 4, 5, 200]
    assert past.restore("time", past.commits[6].time) == [1, 2, 3, 4, 5, 6]
    # No transaction ended later on that timeline.
    assert past.restore("time", past.commits[7].time) == [1, 2, 3, 4, 5, 6, 7]


def test_a_history_that_was_archived_late_is_told_by_its_transactions(past: Restoring) -> None:
    assert past.restore("time", past.commits[3].time) == [1, 2, 3]
    past.commit(100)
    past.commit(101)
    past.stop()
    history = next((past.system.repository / "archive" / "iop").rglob("00000002.history"))
    os.utime(history, (time.time() + 3600, time.time() + 3600))
    assert "--target-timeline=2" in past.replan("time", past.commits[100].time)
    assert "--target-timeline=1" in past.replan("time", past.commits[6].time)


def test_a_moment_at_which_a_timeline_began_is_in_doubt_and_that_is_said(past: Restoring) -> None:
    assert past.restore("time", past.commits[3].time) == [1, 2, 3]
    past.stop()
    history = next((past.system.repository / "archive" / "iop").rglob("00000002.history"))
    doubtful = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(history.stat().st_mtime - 1))
    planned = past.sh("plan", "time", doubtful)
    assert planned.returncode == 0, planned.stderr
    assert "timeline 2 began within seconds of this moment; taken for one of timeline 1" in planned.stderr


def test_other_targets_on_a_timeline_that_was_left_are_refused_with_the_way(past: Restoring) -> None:
    assert past.restore("time", past.commits[3].time) == [1, 2, 3]
    before = past.stage
    for target, at in (("lsn:6", 6), ("xid:6", 6), ("name:six", 6)):
        refused = past.sh("plan", *words_of(past, target))
        assert refused.returncode == 4, target
        assert "is on timeline 1 only, which the newest one, 2, left before that" in refused.stderr, refused.stderr
        assert f'time "{past.commits[at].time}"' in refused.stderr, refused.stderr
    assert past.stage == before
    assert past.restore("xid", str(past.commits[2].xid)) == [1, 2]


def test_a_set_needs_no_way_to_the_newest_timeline(past: Restoring) -> None:
    full, differential = past.labels
    assert past.restore("time", past.commits[6].time) == [1, 2, 3, 4, 5, 6]
    past.stop()
    history = next((past.system.repository / "archive" / "iop").rglob("00000002.history"))
    history.write_bytes(b"1\t0/10\tleft before both backups\n")
    refused = past.sh("plan")
    assert refused.returncode == 4
    assert (
        f"no backup without damage leads to timeline 2\nNothing was touched.\nHINT: there are: set LABEL, of {full}"
        in refused.stderr
    )
    assert past.restore("set", differential) == [1, 2, 3, 4, 5]


def test_a_time_in_the_second_of_the_oldest_backups_end(past: Restoring) -> None:
    stopped = past.system.backups()[0]["timestamp"]["stop"]
    refused = past.sh("plan", "time", time.strftime("%Y-%m-%d %H:%M:%S.9+00", time.gmtime(stopped)))
    assert refused.returncode == 4
    assert "a backup's end is known to the second only" in refused.stderr


@pytest.mark.parametrize("kind", ["none", "gz", "bz2", "lz4"])
def test_every_compression_can_be_read_without_a_data_directory(past: Restoring, kind: str) -> None:
    past.system.environment["PGBACKREST_COMPRESS_TYPE"] = kind
    try:
        past.system.postgres("start")
        past.commit(8)
        past.stop()
    finally:
        past.system.environment.pop("PGBACKREST_COMPRESS_TYPE")
    suffix = archived(past, past.commits[8].segment).suffix
    assert suffix == ("" if kind == "none" else f".{kind}")
    past.must("wipe")
    past.marker.unlink()
    xid = past.commits[8].xid
    assert past.replan("xid", str(xid))[1:3] == ["--type=xid", f"--target={xid}"]
