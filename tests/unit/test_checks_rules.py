"""Rules of the checks that no fault of the catalogue breaks, or that another check reports first."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from scripts import load

probes, memory, repository, snapshot = load("probes"), load("memory"), load("repository"), load("snapshot")
chain, space, verification = load("chain"), load("space"), load("verification")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the checks a state directory of their own."""
    monkeypatch.setattr(memory, "STATE", tmp_path)


def raised(question: Callable[[], Any]) -> tuple[str, str]:
    """Return status and words of the problem that a question raises."""
    with pytest.raises(probes.Problem) as caught:
        question()
    assert caught.value.hint
    return caught.value.status, caught.value.seen


def printed(argv: tuple[str, ...] = ("pgbackrest", "info"), code: int = 0, stderr: str = "") -> Any:
    return subprocess.CompletedProcess(argv, code, "", stderr)


def stanza(code: int = 0, *labels: str) -> dict[str, Any]:
    return {
        "repo": [{"key": 1, "cipher": "none", "status": {"code": code, "message": "no\nway"}}],
        "backup": [
            {"label": label, "timestamp": {"stop": 1}, "database": {"id": 1, "repo-key": 1},
             "archive": {"start": "000000010000000000000002", "stop": "000000010000000000000002"}}
            for label in labels
        ],
        "db": [{"id": 1, "repo-key": 1, "system-id": 7, "version": "17"}],
    }  # fmt: skip


def test_what_verify_does_not_say_is_unknown() -> None:
    (problem,) = verification.judge(subprocess.CompletedProcess(("pgbackrest", "verify"), 0, "what?", ""))
    assert (problem.status, problem.seen) == ("unknown", "verify says nothing of the stanza: what?")


def test_a_repository_that_cannot_be_read_leaves_other_checks_without_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshot, "ask", lambda *_: printed(code=41, stderr="ERROR: [041]: no open\n"))
    monkeypatch.setattr(snapshot, "stanza_in", lambda *_: stanza())
    assert raised(snapshot.ask_info) == ("unknown", "the repository cannot be read: pgbackrest info: no open")
    monkeypatch.setattr(snapshot, "ask", lambda *_: printed())
    monkeypatch.setattr(snapshot, "stanza_in", lambda *_: stanza(99))
    assert raised(snapshot.ask_info) == ("unknown", "repo1 cannot be read: no way")
    monkeypatch.setattr(snapshot, "stanza_in", lambda *_: stanza(2))
    assert snapshot.ask_info() == stanza(2)  # no backup is judged elsewhere


def test_a_repository_that_never_rests_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    label = map(str, count())
    monkeypatch.setattr(snapshot, "ask_info", lambda *_: stanza(0, next(label)))
    monkeypatch.setattr(snapshot, "listing", lambda *_: {})
    assert raised(snapshot.take) == ("unknown", "backups come and go faster than they can be looked at")


def test_a_repository_that_cannot_be_listed_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> dict[str, Any]:
        raise repository.Refused("backup/iop in the repository cannot be listed: why", "see")

    monkeypatch.setattr(snapshot, "ask_info", lambda *_: stanza())
    monkeypatch.setattr(snapshot, "listing", refuse)
    assert raised(snapshot.take) == ("unknown", "backup/iop in the repository cannot be listed: why")


@pytest.mark.parametrize("code", [0, 41])
def test_a_listing_is_demanded(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "ask", lambda *_: printed(("pgbackrest", "repo-ls"), code))
    with pytest.raises(repository.Refused, match="archive/iop in the repository cannot be listed"):
        repository.listing("archive/iop")


def test_a_file_that_hangs_is_not_called_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: str) -> Any:
        raise probes.Problem("unknown", "no answer within 5 s", "run it by hand")

    monkeypatch.setattr(repository, "fetch_bytes", hang)
    with pytest.raises(repository.Refused, match="no answer within 5 s archive/iop/x") as caught:
        repository.fetch("archive/iop/x")
    assert isinstance(caught.value.__cause__, probes.Problem)


SEGMENT = f"0000000100000000/000000010000000000000002-{'a' * 40}.zst"


def look(*labels: str, archive: tuple[str, ...] = ()) -> Any:
    files = {f"17-1/{path}": {"type": "file", "size": 9, "time": 1} for path in archive}
    return snapshot.Snapshot(1, (), stanza(0, *labels), files, {})


def test_an_archive_of_which_nothing_can_be_read_is_critical(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> bytes:
        raise repository.Refused("damaged", "see")

    monkeypatch.setattr(chain, "fetch", refuse)
    monkeypatch.setattr(chain, "look", lambda: [look("F", archive=(SEGMENT,))])
    (problem,) = [finding for finding in chain.wal_chain() if isinstance(finding, probes.Problem)]
    assert (problem.status, problem.seen) == ("critical", "no segment of 17-1 is readable")


def test_backups_without_any_wal_are_critical() -> None:
    (problem,) = chain.judge(look("F"), "17-1", {})
    assert (problem.status, problem.seen) == ("critical", "17-1 holds no WAL at all")
    assert list(chain.judge(look(), "17-1", {})) == []


def test_a_place_that_is_not_there_is_critical(tmp_path: Path) -> None:
    assert space.look("spool", str(tmp_path)).size > 0
    status, seen = raised(lambda: space.look("spool", str(tmp_path / "gone")))
    assert status == "critical"
    assert seen.startswith("spool: df: ")
