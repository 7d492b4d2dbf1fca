"""What the checks make of things that have to agree: clocks, timelines, and files that pgBackRest keeps twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import load

probes, memory, snapshot, repository = load("probes"), load("memory"), load("snapshot"), load("repository")
backups, archiving, checks = load("backups"), load("archiving"), load("checks")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the checks a state directory of their own."""
    monkeypatch.setattr(memory, "STATE", tmp_path)


def told(findings: Iterator[Any]) -> list[tuple[str, str]]:
    """Return status and words of the problems among the findings; each says what to do."""
    problems = [finding for finding in findings if isinstance(finding, probes.Problem)]
    assert all(problem.hint for problem in problems)
    return [(problem.status, problem.seen) for problem in problems]


@pytest.mark.parametrize(
    ("server", "words"),
    [(1000, None), (1055, None), (945, None), (1100, "97 s ahead"), (900, "100 s behind"), (1000 + 86400, "s ahead")],
)
def test_the_servers_clock_is_as_ours(server: float, words: str | None) -> None:
    problems = told(checks.judge_clock(server, 1000, 1003))
    assert len(problems) == (words is not None)
    if words:
        assert problems[0][0] == "critical"
        assert words in problems[0][1]


def test_a_slow_answer_is_no_clock_that_is_wrong() -> None:
    assert told(checks.judge_clock(1000, 900, 1100)) == []


FILES = {name: {"type": "file", "size": 9, "time": 1} for name in ("backup.info", "backup.info.copy")}


def copies(monkeypatch: pytest.MonkeyPatch, *contents: bytes) -> list[tuple[str, str]]:
    """Judge backup.info and its copy, which are read as these contents, in turn."""
    read = iter(contents)
    monkeypatch.setattr(backups, "fetch", lambda *_: next(read))
    monkeypatch.setattr(backups.time, "sleep", lambda _: None)
    return told(backups.judge_copy("backup", FILES, (), {}))


def test_a_file_and_its_copy_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    assert copies(monkeypatch, b"a", b"a") == []
    assert copies(monkeypatch, b"a", b"b", b"b", b"b") == []  # just written
    assert copies(monkeypatch, *[b"a", b"b"] * 3) == [("warning", "backup.info and its copy differ")]


@pytest.mark.parametrize("part", ["archive", "backup"])
@pytest.mark.parametrize("lost", [".info", ".info.copy"])
@pytest.mark.parametrize("entry", [None, {"type": "file", "size": 0}])
def test_neither_is_missing_or_empty(part: str, lost: str, entry: dict[str, Any] | None) -> None:
    files = {f"{part}.info": FILES["backup.info"], f"{part}.info.copy": FILES["backup.info"], f"{part}{lost}": entry}
    found = told(backups.judge_copy(part, {name: entry for name, entry in files.items() if entry}, (), {}))
    assert found == [("warning", f"{part}{lost} is missing or empty")]


def test_one_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> bytes:
        raise repository.Refused("backup/iop/backup.info in the repository cannot be read: [041]", "see it")

    monkeypatch.setattr(backups, "fetch", refuse)
    ((status, seen),) = told(backups.judge_copy("backup", FILES, (), {}))
    assert (status, "[041]" in seen) == ("warning", True)


def test_what_was_equal_is_read_again_only_when_it_has_changed_or_after_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, read = 1000.0, 0
    remembered: dict[str, Any] = {}
    monkeypatch.setattr(backups.time, "time", lambda: now)

    def fetch(*_: Any) -> bytes:
        nonlocal read
        read += 1
        return b"equal"

    def reads(**changed: int) -> int:
        before = read
        files = {name: {**entry, "time": 990, **changed} for name, entry in FILES.items()}
        assert told(backups.judge_copy("backup", files, (), remembered)) == []
        return read - before

    monkeypatch.setattr(backups, "fetch", fetch)
    assert reads() == 2
    assert reads() == 0
    assert reads(size=8) == 2
    assert reads() == 2
    assert reads(time=998) == 2
    assert reads(time=998) == 2  # written in this second or the one before: the next write may have the same time
    assert reads() == 2
    now += 59
    assert reads() == 0
    now += 1
    assert reads() == 2
    now -= 100  # a clock that was set back
    assert reads() == 2


def test_what_differs_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered: dict[str, Any] = {}
    contents = iter([b"a", b"a", *[b"a", b"b"] * 3, b"a", b"b", b"b", b"b"])
    monkeypatch.setattr(backups, "fetch", lambda *_: next(contents))
    monkeypatch.setattr(backups.time, "sleep", lambda _: None)
    assert told(backups.judge_copy("backup", FILES, (), remembered)) == []
    changed = {name: {**entry, "size": 8} for name, entry in FILES.items()}
    assert told(backups.judge_copy("backup", changed, (), remembered)) != []
    assert remembered == {}
    assert told(backups.judge_copy("backup", changed, (), remembered)) == []


@pytest.mark.parametrize(
    ("archive", "then", "strange"),
    [
        (["15-1/0000000100000000/000000010000000000000007-abc.zst"], "000000010000000000000008", False),
        (["15-1/00000002.history"], "000000010000000000000008", True),
        (["15-1/0000000200000000/000000020000000000000008-abc.zst"], "000000010000000000000008", True),
        (["15-1/00000002.history"], "000000020000000000000008", False),  # promoted since
        (["15-1/00000002.history"], None, False),  # in recovery since
        (["15-1/0000000100000000/000000010000000000000008.partial-abc.zst"], "000000010000000000000008", False),
        (["14-1/00000007.history"], "000000010000000000000008", False),  # of the cluster before an upgrade
        ([], "000000010000000000000008", False),
    ],
)
def test_no_timeline_is_newer_than_the_servers(
    archive: list[str], then: str | None, strange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stanza = {"db": [{"id": 1, "repo-key": 1, "version": "15"}], "repo": [{"key": 1}], "backup": []}
    seen = snapshot.Snapshot(1, (), stanza, {path: {"type": "file"} for path in archive}, {})
    monkeypatch.setattr(archiving, "query", lambda _: then)
    problems = told(archiving.judge_timeline(seen, {"segment": "000000010000000000000008"}))
    assert problems == ([("critical", "the archive has timeline 00000002, the server is on 00000001")] * strange)
