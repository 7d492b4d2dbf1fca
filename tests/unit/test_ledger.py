from __future__ import annotations

import json
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_iopbackup.dataset.ledger import Effect, Entry, Ledger, Outcome
from pytest_iopbackup.errors import ProofError

EFFECTS = st.builds(Effect, table=st.text(), key=st.text(), version=st.none() | st.integers())

ENTRIES = st.builds(
    Entry,
    request_id=st.uuids().map(str),
    client=st.integers(0, 63),
    kind=st.text(),
    outcome=st.sampled_from(Outcome),
    xid=st.none() | st.integers(3, 2**64 - 1),
    lsn=st.none() | st.integers(0, 2**64 - 1).map(lambda lsn: f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"),
    time=st.none() | st.datetimes(timezones=st.just(timezone.utc)),
    effects=st.lists(EFFECTS, max_size=3).map(tuple),
)


def entry(number: int = 1, client: int = 0) -> Entry:
    return Entry(
        request_id=str(uuid4()),
        client=client,
        kind="profile",
        outcome=Outcome.ACKNOWLEDGED,
        xid=number,
        lsn="0/16B3748",
        time=datetime(2026, 1, 15, 21, 30, tzinfo=timezone.utc),
        effects=(Effect(table="identity.users", key="ключ", version=number),),
    )


@given(st.lists(ENTRIES, max_size=5))
def test_entries_come_back(tmp_path_factory: pytest.TempPathFactory, entries: list[Entry]) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    for each in entries:
        Ledger(path).append(each)
    assert Ledger(path).entries() == tuple(entries)


@given(st.lists(ENTRIES, min_size=1, max_size=3), st.data())
def test_a_torn_last_line_is_ignored(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    ledger = Ledger(path)
    for each in entries:
        ledger.append(each)
    whole = path.read_bytes()
    last = len(whole.rstrip(b"\n").rpartition(b"\n")[2]) + 1
    path.write_bytes(whole[: -data.draw(st.integers(1, last))])
    assert Ledger(path).entries() == tuple(entries[:-1])

    Ledger(path).append(entries[-1])
    assert Ledger(path).entries() == tuple(entries)


def test_there_is_nothing_in_a_ledger_that_was_never_written(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "ledger.jsonl").entries() == ()


def test_an_entry_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number in range(1, 4):
        ledger.append(entry(number))
        assert len(ledger.path.read_bytes().splitlines()) == number


def test_times_are_kept_in_utc(tmp_path: Path) -> None:
    local = datetime(2026, 1, 15, 23, 30, tzinfo=timezone(timedelta(hours=2)))
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(
        Entry(
            request_id=str(uuid4()),
            client=0,
            kind="login",
            outcome=Outcome.ACKNOWLEDGED,
            xid=7,
            lsn="0/1",
            time=local,
            effects=(),
        )
    )
    assert json.loads(ledger.path.read_bytes())["time"] == "2026-01-15T21:30:00+00:00"


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")

    def write(client: int) -> None:
        for number in range(50):
            ledger.append(entry(number, client))

    threads = [threading.Thread(target=write, args=[client]) for client in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    entries = ledger.entries()
    for client in range(8):
        assert [each.xid for each in entries if each.client == client] == list(range(50))


def damaged_lines() -> list[bytes]:
    def line(**changed: object) -> bytes:
        good = {
            "request_id": str(uuid4()),
            "client": 1,
            "kind": "login",
            "outcome": "acknowledged",
            "xid": 7,
            "lsn": "0/1",
            "time": "2026-01-15T21:30:00+00:00",
            "effects": [],
        }
        return json.dumps({**good, **changed}).encode()

    return [
        b"",
        b"\0\0\0\0",
        b"\xff",
        b"{",
        b"[]",
        b"7",
        b"{}",
        line()[:-2],
        line(request_id="7"),
        line(request_id=str(uuid4()).upper()),
        line(client="1"),
        line(client=True),
        line(kind=None),
        line(outcome="perhaps"),
        line(xid="7"),
        line(lsn="7"),
        line(time="yesterday"),
        line(time="2026-01-15T21:30:00"),
        line(effects=None),
        line(effects=[["identity.users", "key"]]),
        line(effects=[["identity.users", 7, 1]]),
        line(effects=["abc"]),
    ]


@pytest.mark.parametrize("damaged", damaged_lines(), ids=range(len(damaged_lines())))
def test_any_other_damage_is_an_error_with_file_and_line(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.append(entry())
    good = path.read_bytes()
    path.write_bytes(good + damaged + b"\n" + good)
    with pytest.raises(ProofError) as caught:
        ledger.entries()
    assert str(caught.value).startswith(f"{path}:2: ")
    assert caught.value.hint


def test_a_time_without_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="offset"):
        Entry(
            request_id=str(uuid4()),
            client=0,
            kind="login",
            outcome=Outcome.ACKNOWLEDGED,
            xid=7,
            lsn="0/1",
            time=datetime(2026, 1, 15, 21, 30),  # noqa: DTZ001 - the point of the test
            effects=(),
        )
