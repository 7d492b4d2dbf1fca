"""The histories of timelines are judged by themselves, by the WAL that is there, and by the server's own."""

from __future__ import annotations

from typing import Any

import pytest

from scripts import load

timelines, chain, probes = load("timelines"), load("chain"), load("probes")

SIZE = 1 << 20


def archived(forks: dict[int, list[tuple[int, int]]], *spans: tuple[int, int, int]) -> Any:
    """Return an archive with those segments: timeline, first and last number."""
    found = chain.Chain(SIZE)
    for timeline, first, last in spans:
        for number in range(first, last + 1):
            found.add("x", found.name(timeline, number))
    found.forks = forks
    return found


def taken(timeline: int, number: int) -> dict[str, Any]:
    """Return a backup within one segment."""
    segment = chain.Chain(SIZE).name(timeline, number)
    return {
        "label": f"B{number}",
        "type": "full",
        "archive": {"start": segment, "stop": segment},
        "lsn": {"start": f"0/{number * SIZE + 40:X}", "stop": f"0/{number * SIZE + 256:X}"},
    }


def told(found: Any, *backups: dict[str, Any], window: int = 0) -> list[str]:
    problems = list(timelines.judge_histories(found, list(backups), "", window))
    assert {problem.status for problem in problems} <= {"critical"}
    assert all("put 0000000" in problem.hint for problem in problems)
    return [problem.seen for problem in problems]


WHOLE = (1, 2, 9), (2, 9, 12)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (9 * SIZE + 99, ""),
        (9 * SIZE, ""),
        (
            2 * SIZE + 40,
            "it left timeline 1 at 0/200028, before the end of B3, but its WAL begins after that, "
            "with 000000020000000000000009",
        ),
        (10 * SIZE, "it left timeline 1 at 0/A00000, but its WAL begins before that, with 000000020000000000000009"),
    ],
)
def test_a_timeline_begins_where_its_history_says(left: int, words: str) -> None:
    expected = [f"the history of timeline 00000002 is wrong: {words}"] if words else []
    assert told(archived({2: [(1, left)]}, *WHOLE), taken(1, 3)) == expected


def test_wal_that_expired_is_no_contradiction() -> None:
    forks = {2: [(1, 5 * SIZE + 99)]}
    # A backup on the old timeline, taken after the fork; what is older has expired, on whatever timeline.
    assert told(archived(forks, (1, 8, 8), (2, 8, 12)), taken(1, 8)) == []
    # Of one before the window only its own WAL is kept.
    assert told(archived(forks, (1, 8, 8), (2, 10, 12)), taken(1, 8), taken(2, 10), window=1) == []
    assert told(archived(forks, (2, 10, 12)), taken(2, 10)) == []


@pytest.mark.parametrize("forks", [[(2, 99), (1, 9 * SIZE)], [(1, 9 * SIZE), (2, 99)], [(1, 99), (1, 100)], [(3, 99)]])
def test_the_ancestors_of_a_timeline_follow_each_other(forks: list[tuple[int, int]]) -> None:
    expected = ["the history of timeline 00000003 is wrong: its ancestors do not follow each other"]
    assert told(archived({3: forks})) == expected


def test_a_history_is_that_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "1\t0/900063\tno recovery target specified\n\n"
    own = {"00000002": text, "00000003": None, "00000004": text}
    monkeypatch.setattr(timelines, "query", lambda _sql: own)
    forks = {2: [(1, 0x900063)], 3: [(1, 0x900063)]}
    assert list(timelines.judge_own(archived(forks), "")) == []
    forks[2] = [(1, 0x200028)]
    (problem,) = timelines.judge_own(archived(forks), "repo1: ")
    assert (problem.status, problem.seen) == (
        "critical",
        "repo1: the history of timeline 00000002 is wrong: it left 1 at 0/200028, by the server's own 1 at 0/900063",
    )


def test_a_server_that_does_not_answer_is_no_alarm_of_this_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def down(_sql: str) -> None:
        raise probes.Problem("unknown", "psql: no", "is it up?")

    monkeypatch.setattr(timelines, "query", down)
    assert list(timelines.judge_own(archived({2: [(1, 99)]}), "")) == [
        "histories not compared with the server's: psql: no"
    ]


def test_a_history_is_read_again_though_nothing_tells_of_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    now, texts, read = [1000.0], {"00000002.history": b"1\t0/900063\t\n", "00000003.history": b"x"}, []
    monkeypatch.setattr(timelines.time, "time", lambda: now[0])

    def fetch(path: str) -> bytes:
        read.append(path)
        return texts[path]

    listed = {**{path: {"size": 9, "time": 1} for path in texts}, "0000000200000000": {"size": 0, "time": 1}}
    memory: dict[str, Any] = {"histories": {"00000002.history 9 1": "of an earlier version"}}
    assert timelines.histories(listed, fetch, memory) == {2: [(1, 0x900063)]}
    assert timelines.histories(listed, fetch, memory) == {2: [(1, 0x900063)]}
    assert read == list(texts)
    texts["00000002.history"] = b"1\t0/200028\t\n"
    for _ in range(2):
        now[0] += 5
        found = timelines.histories(listed, fetch, memory)
    assert read == [*texts, *texts]
    assert found == {2: [(1, 0x200028)]}
    listed.pop("00000002.history")
    assert timelines.histories(listed, fetch, memory) == {}
    assert list(memory["histories"]) == ["00000003.history 9 1"]
