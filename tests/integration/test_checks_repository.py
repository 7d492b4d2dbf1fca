"""The checks of what is in the repository: each turns red for real causes, and green when they are gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from damage import Damage, aside, copied, flipped, mode, needed, rewritten, segments, write_wal
from pgbackrest_system import System, all_but, statuses, system, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stack() -> Iterator[System]:
    """Give a system with two full backups, a differential one, and WAL before, between and after them."""
    with system() as new:
        write_wal(new)
        for kind in ("full", "diff", "full"):
            new.must(new.scripts / "backup.sh", kind)
            write_wal(new)
        wait_for(lambda: new.check()[0] == 0, seconds=30)
        yield new


Of = Callable[[System], Path]


def of(choose: Of, damage: Callable[[Path], AbstractContextManager[Mapping[str, str]]]) -> Damage:
    """Do a kind of damage to the file that is chosen."""
    return lambda stack: damage(choose(stack))


def middle(stack: System) -> Path:
    """Choose a segment that belongs to no backup."""
    backups = stack.backups()
    own = [(backup["archive"]["start"], backup["archive"]["stop"]) for backup in backups]
    free = [s for s in needed(stack) if not any(start <= s.name[:24] <= stop for start, stop in own)]
    return next(segment for segment in free if segment.name[:24] > backups[-1]["archive"]["stop"])


def older(stack: System) -> Path:
    """Choose a segment between the first backups: the newest full backup does not need it."""
    first, second, *_ = stack.backups()
    between = (s for s in needed(stack) if first["archive"]["stop"] < s.name[:24] < second["archive"]["start"])
    return next(between)


def own(stack: System) -> Path:
    """Choose the segment in which the newest backup ends."""
    return next(s for s in needed(stack) if s.name[:24] == stack.backups()[-1]["archive"]["stop"])


def newest(stack: System) -> Path:
    return segments(stack)[-1]


def backup(stack: System) -> Path:
    return stack.repository / "backup" / "iop" / str(stack.backups()[-1]["label"])


def bundle(stack: System) -> Path:
    return backup(stack) / "bundle" / "1"


@contextmanager
def other_repository(stack: System) -> Iterator[Mapping[str, str]]:
    """Have an empty repository in its place, made to look healthy."""
    with aside(stack.repository):
        stack.must("mkdir", "--mode=750", stack.repository)
        stack.create_stanza()
        stack.must(stack.scripts / "backup.sh")
        yield {}
    write_wal(stack)
    # What was archived there meanwhile is missing here.
    for _ in range(2):
        stack.must(stack.scripts / "backup.sh", "full")


@contextmanager
def older_repository(stack: System) -> Iterator[Mapping[str, str]]:
    """Put a copy in its place that is older than the last backup."""
    old = stack.root / "old"
    stack.must("cp", "--archive", stack.repository, old)
    stack.must(stack.scripts / "backup.sh", "diff")
    stack.check()
    newer = stack.root / "newer"
    stack.repository.rename(newer)
    old.rename(stack.repository)
    try:
        yield {}
    finally:
        shutil.rmtree(stack.repository)
        newer.rename(stack.repository)
        for _ in range(2):
            stack.must(stack.scripts / "backup.sh", "full")


def foreign_timeline(stack: System) -> AbstractContextManager[Mapping[str, str]]:
    """Have a segment of a timeline that nobody knows."""
    segment = newest(stack)
    directory = segment.parents[1] / "0000000900000000"
    stack.must("mkdir", "-p", "--mode=750", directory)
    return copied(segment, directory / f"00000009{segment.name[8:]}")


FAULTS = [
    # fault, check, status, words
    ("segment-gone", of(middle, aside), "wal-chain", "critical", "WAL is missing from the repository: 0000"),
    ("segment-gone-before-the-last-full", of(older, aside), "wal-chain", "warning", "is not affected"),
    ("backups-own-segment-gone", of(own, aside), "wal-chain", "critical", "useless without it: 20"),
    ("segment-empty", of(middle, lambda p: rewritten(p, lambda _: b"")), "wal-chain", "critical", "(0 bytes)"),
    ("segment-flipped", of(middle, lambda p: rewritten(p, flipped)), "wal-chain", "critical", "WAL is damaged: 0000"),
    ("segment-cut", of(own, lambda p: rewritten(p, lambda d: d[:-9])), "wal-chain", "critical", "WAL is damaged"),
    ("segment-of-others", of(middle, lambda p: rewritten(p, lambda d: d[:40])), "wal-chain", "critical", "is damaged"),
    (
        "segment-twice",
        of(middle, lambda p: copied(p, p.with_name(f"{p.name[:25]}{'0' * 40}.zst"))),
        "wal-chain",
        "critical",
        "in the archive twice: 0000",
    ),
    ("history-of-nothing", foreign_timeline, "wal-chain", "critical", "no history of timeline 00000009"),
    ("newest-segment-gone", of(newest, aside), "archiver", "critical", "calls it archived, but it is not"),
    ("backup-gone", of(backup, aside), "backups", "critical", "is listed, but not there"),
    ("manifest-gone", of(lambda s: backup(s) / "backup.manifest", aside), "backups", "critical", "has no backup.man"),
    ("copy-gone", of(lambda s: backup(s) / "backup.manifest.copy", aside), "backups", "warning", "manifest.copy"),
    ("bundle-gone", of(bundle, aside), "backups", "critical", "some are gone, cut off or foreign"),
    ("bundle-cut", of(bundle, lambda p: rewritten(p, lambda d: d[:-1])), "backups", "critical", "bytes of files, not"),
    (
        "info-copy-gone",
        of(lambda s: s.repository / "backup" / "iop" / "backup.info.copy", aside),
        "backups",
        "warning",
        "backup.info.copy is missing",
    ),
    ("segment-unreadable", of(middle, lambda p: mode(p, 0)), "repository", "critical", "no right to write or to read"),
    ("wal-directory-read-only", of(lambda s: middle(s).parent, lambda p: mode(p, 0o550)), "repository", "critical", ""),
    ("lock-path-closed", of(lambda s: s.root / "lock", lambda p: mode(p, 0)), "repository", "critical", "/lock"),
    (
        "spool-closed",
        of(lambda s: s.root / "spool" / "archive" / "iop" / "out", lambda p: mode(p, 0o550)),
        "repository",
        "critical",
        "/out",
    ),
    ("another-repository", other_repository, "repository", "critical", "it has never had backup 20"),
    ("repository-of-yesterday", older_repository, "repository", "critical", "it has never had backup 20"),
]


def test_wal_that_has_expired_is_not_missed(stack: System) -> None:
    assert "000000010000000000000001" < segments(stack)[0].name[:24] == stack.backups()[0]["archive"]["start"]
    assert statuses(stack.check()[1]) == all_but()


@pytest.mark.parametrize(("fault", "check", "status", "words"), [pytest.param(*row[1:], id=row[0]) for row in FAULTS])
def test_a_fault_turns_its_check_red_and_healing_turns_all_green(
    stack: System, *, fault: Damage, check: str, status: str, words: str
) -> None:
    with fault(stack) as environment:
        checks = stack.check(PGBACKREST_ARCHIVE_TIMEOUT="3", **environment)[1]
        assert checks[check]["status"] == status, checks
        assert words in checks[check]["seen"]
        assert checks[check]["hint"]
    healed = stack.check()[1]
    assert statuses(healed) == all_but(), [c["seen"] for c in healed.values() if c["status"] != "ok"]


def test_a_change_that_keeps_size_and_time_is_found_in_time(stack: System) -> None:
    """The segments verified longest ago are verified again, a few with each cycle."""
    with rewritten(middle(stack), flipped, unnoticed=True):
        wait_for(lambda: stack.check()[1]["wal-chain"]["status"] == "critical", seconds=60)
    assert statuses(stack.check()[1]) == all_but()


def test_a_lost_memory_begins_anew(stack: System) -> None:
    for path in stack.state.glob("remembered-*"):
        path.write_text("{")
    code, checks = stack.check()
    assert (code, statuses(checks)) == (0, all_but())
    assert "begins to remember" in checks["repository"]["seen"]
    assert "begins to verify" in checks["wal-chain"]["seen"]


def test_recovery_is_followed_from_timeline_to_timeline(stack: System) -> None:
    """Two restores to earlier moments: two timelines were left, and what was archived on them stays."""
    for name in ("first", "second"):
        write_wal(stack, 1)
        stack.sql(f"SELECT pg_create_restore_point('{name}')")
        write_wal(stack, 2)
        stack.postgres("stop")
        options = ("--delta", "--type=name", f"--target={name}", "--target-action=promote")
        stack.must("pgbackrest", "--stanza=iop", *options, "restore")
        stack.postgres("start")
        wait_for(lambda: stack.sql("SELECT pg_is_in_recovery()") == "f")
        assert statuses(stack.check()[1]) == all_but()
    write_wal(stack, 1)
    archive = middle(stack).parents[1]
    assert [path.name for path in sorted(archive.glob("*.history"))] == ["00000002.history", "00000003.history"]
    for gone in (archive / "00000003.history", archive / "00000002.history"):
        with aside(gone):
            found = stack.check()[1]["wal-chain"]
            assert (found["status"], f"no history of timeline {gone.stem}" in found["seen"]) == ("critical", True)
    for timeline in ("00000001", "00000002", "00000003"):
        mine = [path for path in needed(stack) if path.name.startswith(timeline)]
        with aside(mine[-2] if len(mine) > 1 else mine[0]):
            assert stack.check()[1]["wal-chain"]["status"] == "critical", timeline
    stack.must(stack.scripts / "backup.sh")
    assert statuses(stack.check()[1]) == all_but()
