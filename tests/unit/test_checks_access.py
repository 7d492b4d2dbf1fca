"""Rights to what pgBackRest has to write and read, judged on real files, as the stack's unprivileged user."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_iopbackup.stack.host import account
from scripts import load

checks, probes = load("checks"), load("probes")


def as_account(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run a program as the checks do, but with that user's rights: root has every right."""
    return subprocess.run(argv, check=False, capture_output=True, text=True, cwd="/", **account().popen_arguments)


@pytest.fixture
def place(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a directory with something in it, all of it the user's own."""
    monkeypatch.setattr(checks, "ask", as_account)
    top = base / "repo"
    (top / "archive" / "iop").mkdir(parents=True)
    (top / "archive" / "iop" / "archive.info").write_text("x")
    for path in (top, *top.rglob("*")):
        account().own(path)
    yield top
    subprocess.run(["chmod", "-R", "u+rwX", top], check=True)


def seen(place: Path, *, readable: bool = False) -> list[str]:
    """Return the paths that the check complains about."""
    problems = [finding for finding in checks.judge_access(str(place), readable=readable) if finding != ""]
    assert all(isinstance(problem, probes.Problem) and problem.status == "critical" for problem in problems)
    return [word for problem in problems for word in problem.seen.partition("to read ")[2].split(", ")]


def test_what_belongs_to_the_user_is_no_problem(place: Path) -> None:
    (place / "archive" / "latest").symlink_to("iop")
    (place / "archive" / "gone").symlink_to("nowhere")
    assert seen(place, readable=True) == []


@pytest.mark.parametrize(
    ("name", "mode", "readable", "expected"),
    [
        ("archive/iop", 0o500, False, ["archive/iop"]),
        ("archive/iop", 0o000, False, ["archive/iop"]),
        ("archive", 0o000, True, ["archive"]),
        ("archive/iop/archive.info", 0o400, True, []),
        ("archive/iop/archive.info", 0o000, True, ["archive/iop/archive.info"]),
        ("archive/iop/archive.info", 0o000, False, []),
    ],
)
def test_each_right_that_is_missing_is_named_once(
    place: Path, name: str, mode: int, readable: bool, expected: list[str]
) -> None:
    (place / name).chmod(mode)
    assert seen(place, readable=readable) == [str(place / path) for path in expected]


def test_a_place_that_cannot_even_be_looked_for_is_a_problem(place: Path) -> None:
    place.chmod(0)
    assert seen(place / "archive" / "iop") == [str(place / "archive" / "iop")]


def test_a_place_that_is_not_there_is_one_where_it_cannot_be_made(place: Path) -> None:
    missing: Any = place / "archive" / "another" / "out"
    assert seen(missing) == []
    (place / "archive").chmod(0o500)
    assert seen(missing) == [str(place / "archive")]


@pytest.mark.parametrize("count", [1, 3])
def test_what_was_renamed_while_it_was_asked_is_no_problem(
    place: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Between the two questions of find: what there is, and whether it can be read. A backup replaces backup.info."""
    gone = [f"{place}/archive/iop/archive.info.{number}.tmp" for number in range(count)]
    answers = iter([gone])

    def racing(*argv: str) -> subprocess.CompletedProcess[str]:
        answer = as_account(*argv)
        answer.stdout += "".join(f"{path}\n" for path in next(answers, []))
        return answer

    monkeypatch.setattr(checks, "ask", racing)
    assert seen(place, readable=True) == []
    answers = iter([gone])
    (place / "archive" / "iop" / "archive.info").chmod(0)
    assert seen(place, readable=True) == [f"{place}/archive/iop/archive.info"]
