"""Recovery targets: which are refused, and which backup each is reached from."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_iopbackup.cluster.lsn import parse_lsn, segment_end, segment_name, segment_sizes, segment_timeline
from pytest_iopbackup.cluster.targets import By, Target, choose_set, format_time, parse_time, validate
from pytest_iopbackup.errors import TargetError
from pytest_iopbackup.record import BackupFacts

NOW = datetime(2026, 1, 15, 12, 0, tzinfo=timezone.utc)


def backup(number: int, *, timeline: int = 1, minutes: int | None = None) -> BackupFacts:
    """Make a backup that stops ``minutes`` after NOW at LSN 0/<number>000050."""
    stopped = NOW + timedelta(minutes=number if minutes is None else minutes)
    wal = f"{timeline:08X}00000000{number:08X}"
    return BackupFacts(
        label=f"backup-{number}-{timeline}",
        type="full",
        prior=None,
        database_size=1,
        repository_size=1,
        started=stopped,
        stopped=stopped,
        start_lsn=f"0/{number}000028",
        stop_lsn=f"0/{number}000050",
        start_wal=wal,
        stop_wal=wal,
    )


ONE, TWO, THREE = backup(1), backup(2), backup(3)
CHAIN = (ONE, TWO, THREE)
LINE: dict[int, str | None] = {1: None}


@given(
    st.integers(min_value=631152000_000000, max_value=4102444800_000000),
    st.integers(min_value=-14 * 60, max_value=14 * 60),
)
def test_every_time_with_an_offset_is_read_exactly(microseconds: int, minutes: int) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    moment = (epoch + timedelta(microseconds=microseconds)).astimezone(timezone(timedelta(minutes=minutes)))
    sign = "-" if minutes < 0 else "+"
    offset = f"{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    assert parse_time(f"{moment:%Y-%m-%d %H:%M:%S.%f}{offset}") == moment
    assert parse_time(format_time(moment)) == moment


@pytest.mark.parametrize(
    "text",
    ["2026-01-15 21:30:00+00", "2026-01-15T21:30:00Z", "2026-01-15 21:30:00 +0000", "2026-01-15 16:30:00-05:00",
     "2026-01-16 03:15:00+05:45", "2026-01-15 21:30:00.000000+00"],
)  # fmt: skip
def test_spellings_of_one_instant_agree(text: str) -> None:
    assert parse_time(text) == datetime(2026, 1, 15, 21, 30, tzinfo=timezone.utc)


def test_a_time_without_offset_is_refused_with_what_to_write() -> None:
    with pytest.raises(TargetError) as caught:
        parse_time("2026-01-15 21:30:00.5")
    assert "no UTC offset" in str(caught.value)
    assert "2026-01-15 21:30:00.5+00" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["yesterday", "", "2026-01-15", "2026-01-15 21:30:00 Europe/Berlin", "2026-01-15 21:30:00 CET", "21:30:00+00",
     "2026-13-15 21:30:00+00", "2026-01-15 25:30:00+00", "2026-01-15 21:30:00+99:99", "2026-01-15 21:30:00.1234567+00"],
)  # fmt: skip
def test_anything_but_a_time_with_a_numeric_offset_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match="target time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Target(by=By.TIME, value="2026-01-15 12:00:01+00"), "in the future"),
        (Target(by=By.LSN, value="0x30"), "not an LSN"),
        (Target(by=By.XID, value="-3"), "not a number"),
        (Target(by=By.NAME, value=""), "needs a value"),
        (Target(by=By.TIME), "needs a value"),
    ],
)
def test_a_target_that_no_repository_has_is_refused(target: Target, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        validate(target, NOW)


def test_targets_that_need_no_value_are_valid() -> None:
    validate(Target(), NOW)
    validate(Target(by=By.IMMEDIATE), NOW)


@pytest.mark.parametrize(
    ("target", "chosen"),
    [
        (Target(), THREE),
        (Target(by=By.IMMEDIATE), THREE),
        (Target(by=By.IMMEDIATE, backup_set=TWO.label), TWO),
        (Target(by=By.TIME, value="2026-01-15 12:02:01+00"), TWO),
        # info knows whole seconds: a backup that stops within the target's second may end after it
        (Target(by=By.TIME, value="2026-01-15 12:02:00.999999+00"), ONE),
        (Target(by=By.TIME, value="2026-01-15 14:03:01+02"), THREE),
        (Target(by=By.LSN, value="0/2000050"), TWO),
        (Target(by=By.LSN, value="0/200004F"), ONE),
        (Target(by=By.XID, value="740", at_lsn="0/2500000"), TWO),
        (Target(by=By.NAME, value="here", at_lsn="0/2000000"), ONE),
        (Target(by=By.NAME, value="here"), THREE),
    ],
)
def test_the_newest_backup_that_ends_before_the_target_is_chosen(target: Target, chosen: BackupFacts) -> None:
    assert choose_set(target, CHAIN, LINE) == chosen


@pytest.mark.parametrize(
    "target",
    [
        Target(by=By.TIME, value="2026-01-15 12:01:00+00"),
        Target(by=By.LSN, value="0/1000028"),
        Target(by=By.XID, value="700", at_lsn="0/1000028"),
    ],
)
def test_a_target_before_the_first_backups_end_is_refused_with_the_oldest_moment(target: Target) -> None:
    with pytest.raises(TargetError) as caught:
        choose_set(target, CHAIN, LINE)
    assert "no backup ends before the target" in str(caught.value)
    assert ONE.label in str(caught.value)
    assert "2026-01-15 12:01:00" in str(caught.value)


def test_an_empty_repository_is_refused() -> None:
    with pytest.raises(TargetError, match="holds no backup"):
        choose_set(Target(), (), LINE)


def test_an_unknown_set_is_refused_with_those_there_are() -> None:
    with pytest.raises(TargetError, match=ONE.label):
        choose_set(Target(backup_set="20260101-000000F"), CHAIN, LINE)


def test_a_backup_on_an_abandoned_branch_is_never_chosen() -> None:
    """Timeline 2 left timeline 1 at 0/2800000: what timeline 1 backed up later is another history."""
    branch = backup(4, timeline=2)
    line: dict[int, str | None] = {2: None, 1: "0/2800000"}
    everything = (*CHAIN, branch)
    assert choose_set(Target(), everything, line) == branch
    assert choose_set(Target(by=By.LSN, value="0/3900000"), everything, line) == TWO
    assert choose_set(Target(by=By.LSN, value="0/3900000", timeline=1), everything, LINE) == THREE


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_an_lsn_is_read_as_postgresql_writes_it(position: int) -> None:
    assert parse_lsn(f"{position >> 32:X}/{position & 0xFFFFFFFF:X}") == position


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "0/123456789", "g/0", "0/0 ", "-1/0"])
def test_what_is_no_lsn_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an LSN"):
        parse_lsn(text)


@given(st.integers(20, 30), st.integers(0, 2**40))
def test_the_size_of_a_segment_follows_from_its_name_and_a_place_in_it(bits: int, position: int) -> None:
    name = segment_name(3, position >> bits, 1 << bits)
    sizes = segment_sizes(position, name)
    assert 1 << bits in sizes
    assert len(sizes) == 1 or name.endswith("0" * 8)


def test_a_segment_that_does_not_hold_the_place_has_no_size() -> None:
    assert segment_sizes(parse_lsn("0/3000028"), "000000010000000000000003") == {16 << 20}
    assert segment_sizes(parse_lsn("0/300028"), "000000010000000000000003") == {1 << 20}
    assert segment_sizes(parse_lsn("0/3000028"), "000000010000000000000005") == set()


def test_a_segments_name_gives_its_timeline_and_end() -> None:
    assert segment_timeline("0000000A0000000100000002") == 10
    assert segment_end("0000000A0000000100000002", 16 << 20) == parse_lsn("1/3000000")
    with pytest.raises(ValueError, match="not a WAL segment"):
        segment_timeline("00000002.history")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Target(by=By.TIME, value="2026-01-15 12:02:00.9+00", backup_set=TWO.label), "ends after the target"),
        (Target(by=By.LSN, value="0/200004F", backup_set=TWO.label), "ends after the target"),
        (Target(by=By.NAME, value="here", at_lsn="0/2000000", backup_set=TWO.label), "ends after the target"),
        (Target(backup_set=backup(4, timeline=2).label), "timeline that does not lead to the target"),
    ],
)
def test_a_set_from_which_the_target_cannot_be_reached_is_refused(target: Target, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        choose_set(target, (*CHAIN, backup(4, timeline=2)), LINE)


def test_a_set_that_ends_before_the_target_is_taken_though_a_newer_one_would_do() -> None:
    later = Target(by=By.LSN, value="0/3500000", backup_set=ONE.label)
    assert choose_set(later, CHAIN, LINE) == ONE
    at_end = Target(by=By.IMMEDIATE, backup_set="backup-4-2")
    assert choose_set(at_end, (*CHAIN, backup(4, timeline=2)), LINE).label == "backup-4-2"
