"""A container that cannot be frozen at once, as it happens on a busy machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_iopbackup.errors import CommandError, DeadlineError
from pytest_iopbackup.stack import docker
from pytest_iopbackup.stack.base import CommandResult

BUSY = "Error response from daemon: Cannot pause container c: OCI runtime pause failed: unable to freeze: unknown"


def answering(monkeypatch: pytest.MonkeyPatch, answers: Iterator[str]) -> list[tuple[str, ...]]:
    """Let Docker say these, one after the other; an empty one is success."""
    asked = []

    def run(*argv: str, check: bool = True) -> CommandResult:
        asked.append(argv)
        said = next(answers)
        return CommandResult(argv, 1 if said else 0, "", said, 0.1)

    monkeypatch.setattr(docker, "docker", run)
    return asked


def test_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, iter([BUSY, BUSY, ""]))
    docker.pause("c", 5)
    assert asked == [("pause", "c")] * 3


def test_another_error_is_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, iter(["No such container: c"]))
    with pytest.raises(CommandError, match="No such container: c"):
        docker.pause("c", 5)
    assert len(asked) == 1


def test_it_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, iter([BUSY] * 100))
    with pytest.raises(DeadlineError, match="container c to be paused"):
        docker.pause("c", 0.1)
