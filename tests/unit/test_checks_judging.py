"""What the checks make of their facts: backups, space, verify, settings, the chain of WAL; without a server."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import SCRIPTS, load

probes, memory, snapshot = load("probes"), load("memory"), load("snapshot")
backups, space, settings = load("backups"), load("space"), load("settings")
verification, chain, workers = load("verification"), load("chain"), load("workers")
checksums = load("checksums")
checks, health, archiving = load("checks"), load("health"), load("archiving")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the checks a state directory of their own, and no variables of the machine's."""
    for module in (memory, workers, checks):
        monkeypatch.setattr(module, "STATE", tmp_path)
    for name in (*probes.LIMITS, *probes.PERIODS):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def told(findings: Iterator[Any]) -> list[tuple[str, str]]:
    """Return status and words of the problems among the findings; each says what to do."""
    problems = [finding for finding in findings if isinstance(finding, probes.Problem)]
    assert all(problem.hint for problem in problems)
    return [(problem.status, problem.seen) for problem in problems]


def backup(label: str, kind: str = "full", *, ago: float = 60, size: int = 1000, **more: Any) -> dict[str, Any]:
    """Return an entry of info."""
    stop = int(time.time() - ago)
    return {
        "label": label, "type": kind, "timestamp": {"start": stop - 1, "stop": stop}, "error": False,
        "info": {"size": size, "repository": {"delta": 10}}, "database": {"id": 1, "repo-key": 1},
        "archive": {"start": "000000010000000000000002", "stop": "000000010000000000000002"},
        "lsn": {"start": "0/2000028", "stop": "0/2000100"}, "prior": None, "reference": None, **more,
    }  # fmt: skip


def lying(label: str, *, data: int = 10) -> dict[str, dict[str, Any]]:
    """Return what lies in the repository for a whole backup."""
    file = {"type": "file", "time": 1}
    return {
        label: {"type": "path"},
        f"{label}/backup.manifest": {**file, "size": 77},
        f"{label}/backup.manifest.copy": {**file, "size": 77},
        f"{label}/bundle/1": {**file, "size": data},
        "backup.info": {**file, "size": 5},
        "backup.info.copy": {**file, "size": 5},
    }


def look(*entries: dict[str, Any], files: dict[str, Any] | None = None) -> Any:
    """Return a snapshot of one repository."""
    stanza = {
        "backup": list(entries), "db": [{"id": 1, "repo-key": 1, "version": "17"}],
        "repo": [{"key": 1, "cipher": "none"}],
    }  # fmt: skip
    return snapshot.Snapshot(1, (), stanza, {}, files or {})


# backups


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"A/bundle/1": {"type": "file", "size": 9}}, "has 9 bytes of files, not 10"),
        ({"A/pg_data/foreign": {"type": "file", "size": 1}}, "has 11 bytes of files, not 10"),
        ({"A/backup.manifest": None}, "has no backup.manifest"),
        ({"A/backup.manifest": {"type": "file", "size": 0}}, "has no backup.manifest"),
        ({"A/backup.manifest.copy": None}, "has no backup.manifest.copy"),
        ({"A": None}, "is listed, but not there"),
        ({"B/bundle/1": {"type": "file", "size": 3}}, None),  # a backup in progress
    ],
)
def test_what_info_lists_has_to_lie_there(change: dict[str, Any], words: str | None) -> None:
    files = {path: entry for path, entry in {**lying("A"), **change}.items() if entry}
    problems = told(backups.judge_files([backup("A")], files))
    assert len(problems) == (words is not None)
    assert all(words in seen for _, seen in problems if words)


def test_pages_of_the_newest_backup_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "judge_copy", lambda *_: iter(()))
    files, damaged = {**lying("F"), **lying("G")}, "backup G found pages with wrong checksums"
    assert told(backups.judge(look(backup("F", ago=90, error=True), backup("G"), files=files))) == []
    newest = look(backup("F", ago=90), backup("G", error=True), files=files)
    assert told(backups.judge(newest)) == [("critical", damaged)]


def test_a_backup_needs_those_it_builds_on() -> None:
    diff = backup("A_D", "diff", prior="A", reference=["A"])
    assert told(backups.judge_references([backup("A"), diff])) == []
    assert told(backups.judge_references([diff])) == [("critical", "backup A_D builds on A, which is gone")]


@pytest.mark.parametrize(("ago", "red"), [(60, False), (-30, False), (-120, True), (-86400, True)])
def test_backups_of_the_future_are_seen(ago: float, *, red: bool) -> None:
    assert bool(told(backups.judge_times([backup("A", ago=ago)]))) is red


@pytest.mark.parametrize(
    ("sizes", "red"),
    [
        ((1000,), False),
        ((1000, 1100, 3000), False),
        ((1000, 1100, 90), True),
        ((1000, 1000, 12000), True),
        ((9, 90), False),
    ],
)
def test_a_sudden_change_of_size_is_seen(sizes: tuple[int, ...], *, red: bool) -> None:
    mine = [backup(f"F{n}", size=size) for n, size in enumerate(sizes)]
    assert bool(told(backups.judge_sizes(mine))) is red
    assert told(backups.judge_sizes([*mine, backup("D", "diff", size=1)])) == []  # no other one of its type


def test_ages_are_judged_by_the_workers_frequency(monkeypatch: pytest.MonkeyPatch) -> None:
    old = [backup("F", ago=604800 + 3601), backup("D", "diff", ago=7300)]
    assert [status for status, _ in told(backups.judge_ages(old))] == ["critical"]  # no worker: the full one alone
    monkeypatch.setenv("DATABASE_BACKUP_FREQUENCY", "3600")
    assert ["last full" in seen for _, seen in told(backups.judge_ages(old))] == [False]
    monkeypatch.setenv("IOP_FULL_BACKUP_AGE", "3600")
    assert ["last full" in seen for _, seen in told(backups.judge_ages(old))] == [True, False]
    assert told(backups.judge_ages([backup("F")])) == []
    assert told(backups.judge_ages([backup("D", "diff")])) == [("critical", "no full backup")]


def test_a_recovery_window_is_judged_once_it_can_be_full(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IOP_RECOVERY_WINDOW", "1000")
    assert told(backups.judge_window([backup("A", ago=100)], 1)) == []  # the first backup ever
    (state / "remembered-iop-window-1.json").write_text(json.dumps({"first": time.time() - 5000}))
    assert [status for status, _ in told(backups.judge_window([backup("A", ago=100)], 1))] == ["warning"]
    assert told(backups.judge_window([backup("A", ago=1001)], 1)) == []


# repository


def identity(*entries: dict[str, Any], history: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    files = {f"backup.history/2026/{label}.manifest.gz": {"type": "file"} for label in history}
    return told(checks.judge_identity(look(*entries, files=files), memory.Memory("repository-1")))


def test_every_backup_ever_seen_is_there_or_in_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "options", dict)
    assert identity(backup("A"), backup("A_D")) == []
    assert identity(backup("A"), history=("A_D",)) == []  # expired
    ((status, seen),) = identity(backup("B"))
    assert (status, "it has never had backup A, A_D" in seen) == ("critical", True)
    assert [status for status, _ in identity(backup("B"), backup("A"))] == ["critical"]
    assert identity(backup("A"), history=("A_D",)) == []  # of B, nothing was learnt
    monkeypatch.setattr(checks, "options", lambda: {"repo-retention-history": "0"})
    assert identity(backup("A")) == []


def test_a_memory_survives_and_a_lost_one_begins_anew(state: Path) -> None:
    first = memory.Memory("x")
    assert first.new
    first["a"] = [1]
    first.save()
    again = memory.Memory("x")
    assert (again.new, dict(again)) == (False, {"a": [1]})
    for text in ("", "[1", "7", "null"):
        first.path.write_text(text)
        assert memory.Memory("x").new


# space


def volume(free: int, size: int, *, inodes: int = 100, free_inodes: int = 90) -> Any:
    return space.Volume(size, free, inodes, free_inodes, "/x", ["spool"])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (volume(30 << 30, 100 << 30), []),
        (volume(9 << 30, 100 << 30), ["warning"]),
        (volume(4 << 30, 100 << 30), ["critical"]),
        (volume(60 << 30, 4000 << 30), []),  # 1.5 percent, but plenty
        (volume(3 << 20, 64 << 20), ["critical"]),
        (volume(60 << 20, 64 << 20), []),
        (volume(0, 64 << 20), ["critical"]),
        (volume(30 << 30, 100 << 30, free_inodes=4), ["critical"]),
        (volume(30 << 30, 100 << 30, inodes=0, free_inodes=0), []),  # a file system that has none
    ],
)
def test_room_is_judged(found: Any, expected: list[str]) -> None:
    assert [status for status, _ in told(space.judge(found))] == expected


def samples(*free: int, every: float = 60) -> list[list[float]]:
    return [[n * every, float(value)] for n, value in enumerate(free)]


@pytest.mark.parametrize(
    ("free", "red"),
    [
        ((1000, 900, 800, 700, 600, 500), True),  # full in 300 s
        ((1000, 1000, 1000, 1000, 1000, 500), False),  # once
        ((1000, 500, 500, 500, 500, 500), False),
        ((1000, 900, 1000, 900, 1000, 900), False),  # up and down
        ((10**9, 10**9 - 100, 10**9 - 200, 10**9 - 300, 10**9 - 400, 10**9 - 500), False),
        ((500, 600, 700, 800, 900, 1000), False),
        ((1000, 0), False),  # too few to tell
    ],
)
def test_growth_is_extrapolated_with_care(free: tuple[int, ...], *, red: bool) -> None:
    assert bool(told(space.judge_growth(volume(free[-1], 10**10), samples(*free)))) is red


def test_samples_stay_few_and_reach_back() -> None:
    kept: list[list[float]] = []
    for n in range(1000):
        kept = space.thin([*kept, [float(n), 1.0]])
    assert len(kept) <= space.SAMPLES + 1
    assert (kept[0][0], kept[-1][0]) == (0.0, 999.0)


MOUNTS = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /my\040repo ro,relatime - ext4 /dev/vdb rw,errors=remount-ro
31 22 0:41 / /data rw - ext4 /dev/vdc ro
32 22 0:42 / /data rw - tmpfs tmpfs rw
33 22 0:43 / /broken rw shared:1 - xfs /dev/vdd ro,noquota
"""


@pytest.mark.parametrize(
    ("name", "mount", "red"),
    [
        ("repository", "/", False),
        ("repository", "/my repo", True),
        ("data", "/my repo", False),  # the workers have it so on purpose
        ("data", "/data", False),  # the last one mounted there
        ("data", "/broken", True),
        ("spool", "/nowhere", False),
    ],
)
def test_read_only_mounts_are_seen(name: str, mount: str, *, red: bool) -> None:
    assert bool(told(space.judge_mount(name, space.options_of(MOUNTS, mount)))) is red


# verify


VERIFIED = """stanza: iop
status: {status}
  archiveId: 17-1, total WAL checked: 4, total valid WAL: {valid}
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: 20261122-143602F, status: {backup}, total files checked: 968, total valid files: 968
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
"""


@pytest.mark.parametrize(
    ("change", "stderr", "words"),
    [
        ({}, "", None),
        ({"backup": "in-progress"}, "", None),
        ({"status": "error"}, "", "verify finds damage: the repository"),
        ({"backup": "invalid"}, "", "20261122-143602F"),
        ({"backup": "some-new-word"}, "", "20261122-143602F"),
        ({"valid": "3"}, "", "WAL of 17-1 (1 files)"),
        ({}, "WARN: duplicate WAL '0A' for '17-1' exists, skipping\n", "duplicate WAL"),
        ({}, "ERROR: [041]: unable to open\n", "unable to open"),
    ],
)
def test_what_verify_prints_is_judged(change: dict[str, str], stderr: str, words: str | None) -> None:
    text = VERIFIED.format(**{"status": "ok", "backup": "valid", "valid": "4", **change})
    problems = verification.judge(subprocess.CompletedProcess(("pgbackrest", "verify"), 0, text, stderr))
    assert len(problems) == (words is not None)
    assert all(words in problem.seen for problem in problems if words)


@pytest.mark.parametrize("text", ["", "stanza: iop\nstatus: error\n  backup set 2026F is not valid\n"])
def test_silence_of_verify_is_no_good_news(text: str) -> None:
    assert verification.judge(subprocess.CompletedProcess(("pgbackrest", "verify"), 0, text, ""))


# configuration


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ('pgbackrest --stanza="${PGBACKREST_STANZA:-iop}" archive-push "%p"', None),
        ("pgbackrest --stanza=iop --repo1-path=/repo/ archive-push %p", None),
        ("pgbackrest --stanza=iop --repo1-path=/other archive-push %p", "its repo1-path is /other"),
        ("pgbackrest --stanza=iop --repo1-path /other archive-push %p", "its repo1-path is /other"),
        ("PGBACKREST_REPO1_PATH=/other pgbackrest archive-push %p", "its repo1-path is /other"),
        ("pgbackrest --stanza=other archive-push %p", "its stanza is other"),
        ("pgbackrest --pg1-path='/elsewhere' archive-push %p", "its pg1-path is /elsewhere"),
        ("pgbackrest --log-level-console=off --stanza=iop archive-push %p", None),
        ("pgbackrest --repo1-cipher-pass=x archive-push %p", None),
        ("pgbackrest --repo1-host=elsewhere archive-push %p", "its repo1-host is elsewhere, backups use not set"),
        ("pgbackrest --repo1-type=s3 archive-push %p", "its repo1-type is s3, backups use posix"),
        ("pgbackrest --config=/etc/other.conf archive-push %p", "its config is /etc/other.conf"),
    ],
)
def test_archive_command_uses_the_same_configuration(command: str, words: str | None) -> None:
    ours = {"repo-path": "/repo", "pg-path": "/data", "repo-cipher-pass": "<redacted>"}
    problems = told(settings.judge_command(command, ours))
    assert len(problems) == (words is not None)
    assert all(words in seen for _, seen in problems if words)


def test_the_repository_is_of_the_cluster_that_runs() -> None:
    stanza = {"db": [{"id": 1, "repo-key": 1, "system-id": 6}, {"id": 2, "repo-key": 1, "system-id": 7}]}
    assert told(settings.judge_identity("7", stanza)) == []
    assert told(settings.judge_identity("6", stanza)) == [("critical", "repo1 is of the cluster 7, the server is 6")]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"track_commit_timestamp": "off"}, "track_commit_timestamp is off"),
        ({"archive_timeout": "30"}, None),
        ({"archive_timeout": "61"}, "archive_timeout is 61, not 60"),
    ],
)
def test_the_server_runs_with_what_is_demanded(change: dict[str, str], words: str | None) -> None:
    text = (SCRIPTS / "postgresql.conf").read_text()
    problems = told(settings.judge_demands({"track_commit_timestamp": "on", "archive_timeout": "60", **change}, text))
    assert len(problems) == (words is not None)
    assert all(words in seen for _, seen in problems if words)


# wal-chain


def archived(*segments: str, forks: dict[int, list[tuple[int, int]]] | None = None) -> Any:
    """Return a chain of segments of 16 MiB, given as timeline-number: ``1-5``."""
    found = chain.Chain(1 << 24, forks=forks or {})
    for text in segments:
        timeline, number = map(int, text.split("-"))
        name = found.name(timeline, number)
        found.add(f"x/{name}-{'a' * 40}.zst", name)
    return found


def taken(timeline: int, start: int, stop: int, kind: str = "full") -> dict[str, Any]:
    names = [f"{timeline:08X}00000000{number:08X}" for number in (start, stop)]
    lsn = {"start": f"0/{start:X}000028", "stop": f"0/{stop:X}000100"}
    return backup(f"F{start}", kind, archive=dict(zip(("start", "stop"), names, strict=True)), lsn=lsn)


def missing(found: Any, *entries: dict[str, Any], since: int = 0) -> list[str]:
    holes = chain.holes(found, chain.needed(found, list(entries), since))
    return [f"{timeline}-{number}" for timeline, number in map(found.place, holes)]


def run(timeline: int, first: int, last: int) -> list[str]:
    return [f"{timeline}-{number}" for number in range(first, last + 1)]


def test_segments_are_needed_from_the_oldest_backup_to_the_newest_segment() -> None:
    whole = run(1, 1, 9)
    assert missing(archived(*whole), taken(1, 3, 3), taken(1, 6, 7)) == []
    for gone in whole:
        left = [segment for segment in whole if segment != gone]
        needless = gone in {"1-1", "1-2", "1-9"}  # before the first backup; the end, which pg_stat_archiver tells
        assert missing(archived(*left), taken(1, 3, 3), taken(1, 6, 7)) == ([] if needless else [gone])


def test_older_backups_need_their_own_segments_where_wal_is_kept_for_fewer() -> None:
    left = [*run(1, 3, 4), *run(1, 6, 9)]
    assert missing(archived(*left), taken(1, 3, 4), taken(1, 7, 7), since=1) == []
    assert missing(archived(*left), taken(1, 3, 5), taken(1, 7, 7), since=1) == ["1-5"]
    assert missing(archived(*left), taken(1, 3, 4), taken(1, 7, 7), since=0) == ["1-5"]


def test_timelines_are_followed_where_they_were_left() -> None:
    # Timeline 2 leaves 1 within segment 5, timeline 3 leaves 2 within 7; on 1 and 2 more was archived.
    forks = {2: [(1, 5 * (1 << 24) + 99)], 3: [(1, 5 * (1 << 24) + 99), (2, 7 * (1 << 24) + 99)]}
    whole = [*run(1, 2, 6), *run(2, 5, 8), *run(3, 7, 9)]
    assert missing(archived(*whole, forks=forks), taken(1, 3, 3)) == []
    without = [segment for segment in whole if segment not in {"1-4", "2-6", "3-8"}]
    assert missing(archived(*without, forks=forks), taken(1, 3, 3)) == ["1-4", "2-6", "3-8"]
    # A backup on timeline 3 needs nothing of the others; one taken on 1 after the fork, nothing of 2 and 3.
    assert missing(archived(*run(3, 7, 9), forks=forks), taken(3, 8, 8)) == []
    assert missing(archived("1-6", "2-9", forks=forks), taken(1, 6, 6)) == []


@pytest.mark.parametrize(
    ("name", "size", "cipher", "red"),
    [
        ("", 1 << 24, "none", False),
        ("", 1 << 23, "none", True),
        ("", (1 << 24) + 99, "none", True),
        ("", (1 << 24) + 99, "aes-256-cbc", False),
        (".zst", 300, "none", False),
        (".zst", 0, "none", True),
        (".zst", 0, "aes-256-cbc", True),
    ],
)
def test_files_of_an_impossible_size_are_seen(name: str, size: int, cipher: str, *, red: bool) -> None:
    found = chain.Chain(1 << 24)
    segment = found.name(1, 3)
    path = f"x/{segment}-{'a' * 40}{name}"
    found.add(path, segment)
    taken_of = look()
    taken_of.stanza["repo"][0]["cipher"] = cipher
    there = snapshot.Snapshot(1, (), taken_of.stanza, {f"17-1/{path}": {"size": size, "time": 1}}, {})
    assert bool(told(chain.judge_files(there, "17-1", found, {1: [(3, 3)]}))) is red


def test_no_backup_at_all_gets_worse_with_time(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [status for status, _ in told(backups.judge_none(1))] == ["warning"]
    (state / "remembered-iop-none-1.json").write_text(json.dumps({"since": time.time() - 3601}))
    assert [status for status, _ in told(backups.judge_none(1))] == ["critical"]
    monkeypatch.setenv("DATABASE_BACKUP_FREQUENCY", "60")
    assert told(backups.judge_none(1)) == []  # the worker is about to start


def test_a_timeline_needs_its_history_where_an_older_backup_leads_to_it() -> None:
    fork = {2: [(1, 5 * (1 << 24) + 99)]}
    whole = [*run(1, 3, 5), *run(2, 5, 8)]
    assert told(chain.judge_histories(archived(*whole, forks=fork), [taken(1, 3, 3)], "")) == []
    ((status, seen),) = told(chain.judge_histories(archived(*whole), [taken(1, 3, 3)], ""))
    assert (status, "no history of timeline 00000002" in seen) == ("critical", True)
    # A repository that began with a server on timeline 2 has never had its history, nor needs it.
    assert told(chain.judge_histories(archived(*run(2, 5, 8)), [taken(2, 6, 6)], "")) == []


def test_segments_go_on_across_log_files() -> None:
    assert archived().place("000000010000000100000000") == (1, 256)
    assert missing(archived(*run(1, 254, 258)), taken(1, 254, 254)) == []
    assert missing(archived(*run(1, 254, 255), *run(1, 257, 258)), taken(1, 254, 254)) == ["1-256"]


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({}, 0),
        ({"repo-retention-archive": "1"}, 2),
        ({"repo-retention-archive": "2"}, 0),
        ({"repo-retention-archive": "9"}, 0),
        ({"repo-retention-archive": "1", "repo-retention-archive-type": "diff"}, 3),
        ({"repo-retention-archive": "<multi>"}, 2),
    ],
)
def test_the_window_begins_where_pgbackrest_keeps_all_wal(options: dict[str, str], first: int) -> None:
    mine = [backup("A"), backup("A_D", "diff"), backup("B"), backup("B_D", "diff")]
    assert chain.window_start(mine, options) == first


def test_a_file_changed_since_or_verified_too_early_is_verified_again() -> None:
    entry = {"size": 5, "time": 1000}
    assert checksums.changed(None, entry)
    assert checksums.changed([5, 999, 2000, ""], entry)
    assert checksums.changed([6, 1000, 2000, ""], entry)
    assert checksums.changed([5, 1000, 1001, ""], entry)
    assert not checksums.changed([5, 1000, 2000, ""], entry)


# What all share


def test_a_check_that_never_ends_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hanging() -> Iterator[Any]:
        released.wait(60)
        yield "late"

    def quick() -> Iterator[Any]:
        yield "fine"

    monkeypatch.setattr(checks, "CHECKS", (hanging, quick))
    monkeypatch.setenv("IOP_ARCHIVE_CHECK_TIMEOUT", "1")
    monkeypatch.setenv("IOP_PROBE_TIMEOUT", "1")
    started = time.monotonic()
    late, fine = health.carry_out_all()
    released.set()
    assert time.monotonic() - started < 10
    assert (late.name, late.status, late.seen) == ("hanging", "unknown", "no result within 4 s")
    assert (fine.name, fine.status) == ("quick", "ok")


def test_one_question_of_several_threads_is_asked_once() -> None:
    asked = []

    def ask() -> int:
        asked.append(1)
        time.sleep(0.05)  # the others come meanwhile
        return 7

    question = probes.once(ask)
    threads = [threading.Thread(target=question) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (question(), len(asked)) == (7, 1)


def test_a_problem_with_a_shared_question_is_everyones() -> None:
    def ask() -> int:
        raise probes.Problem("unknown", "no answer", "look", 55)

    question = probes.once(ask)

    for _ in range(2):
        with pytest.raises(probes.Problem) as raised:
            question()
        assert (raised.value.seen, raised.value.code) == ("no answer", 55)


def test_what_is_done_has_to_be_stored_as_far_back_as_the_newest_full_backup_needs() -> None:
    name = archived().name
    paths = {f"17-1/x/{name(1, n)}-{'a' * 40}.zst": {"type": "file"} for n in (2, 3, 5)}
    found = snapshot.Snapshot(1, (), look(taken(1, 3, 3)).stanza, paths, {})
    for done, lost in (((3, 5), []), ((1,), []), ((3, 4, 5), [4])):
        server = {"archived": name(1, 5), "done": [name(1, n) for n in done]}
        assert archiving.missing_from(found, server) == [name(1, n) for n in lost]
    assert archiving.missing_from(found, {"archived": name(1, 6), "done": []}) == [name(1, 6)]
    assert archiving.missing_from(found, {"archived": None, "done": []}) == []
    assert archiving.missing_from(found, {"archived": f"{name(1, 4)}.00000028.backup", "done": []}) == []


def test_wal_that_goes_with_a_backup_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    name = archived().name

    def seen(first: int, *stored: int) -> Any:
        paths = {f"17-1/x/{name(1, n)}-{'a' * 40}.zst": {"type": "file"} for n in stored}
        return snapshot.Snapshot(1, (), look(taken(1, first, first)).stanza, paths, {})

    def judged(before: Any, listed: Any, after: Any) -> list[Any]:
        monkeypatch.setattr(archiving, "files", lambda *_: listed.archive)
        monkeypatch.setattr(archiving, "take", lambda: [after])
        server = {"archived": name(1, 7), "done": [name(1, n) for n in (2, 3, 5, 6, 7)]}
        return list(archiving.judge_stored(before, server))

    old = seen(2, 2, 3, 5, 6)
    new = seen(5, 5, 6, 7)  # the backup from 2 has expired since, with its WAL, and 7 has arrived
    assert judged(old, seen(2, 2, 3, 5, 6, 7), old) == []
    assert judged(old, new, new) == []
    (problem,) = judged(old, new, old)
    assert name(1, 7) in problem.seen
