"""New variables are taken up although a health check lags behind, and a service that stays unhealthy is named."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from pytest_iopbackup.errors import CommandError
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.stack.base import CommandResult
from pytest_iopbackup.stack.compose import ComposeStack
from pytest_iopbackup.stack.mapping import ComposeMapping
from pytest_iopbackup.stack.project import Project

UNHEALTHY = "container p-pgbackrest-1 is unhealthy"


class Answers:
    """A project whose ``up`` fails with each of these words, the last ones for ever; None succeeds."""

    def __init__(self, *words: str | None) -> None:
        self.words = list(words)
        self.settings: dict[str, str] = {}
        self.calls = 0

    def up(self, *_services: str) -> None:
        self.calls += 1
        said = self.words.pop(0) if len(self.words) > 1 else self.words[0]
        if said is not None:
            raise CommandError(CommandResult(("docker", "compose", "up"), 1, "", said, 0.1))

    def containers(self) -> dict[str, str]:
        return {}


def configured(answers: Answers, tmp_path: Path) -> None:
    limits = Limits(start=0.2)
    stack = ComposeStack(tmp_path, cast("Project", answers), ComposeMapping(), limits, "iop")
    stack.configure({"DATABASE_BACKUP_FREQUENCY": "60"})


def test_one_that_is_healthy_in_the_end_is_waited_for(tmp_path: Path) -> None:
    answers = Answers(UNHEALTHY, f"dependency failed to start: {UNHEALTHY}", None)
    configured(answers, tmp_path)
    assert answers.calls == 3
    assert answers.settings == {"DATABASE_BACKUP_FREQUENCY": "60"}


def test_one_that_stays_unhealthy_is_named(tmp_path: Path) -> None:
    answers = Answers(UNHEALTHY)
    with pytest.raises(CommandError, match="container p-pgbackrest-1 is unhealthy"):
        configured(answers, tmp_path)
    assert answers.calls > 1


def test_other_trouble_is_not_waited_for(tmp_path: Path) -> None:
    answers = Answers("no such service: database")
    with pytest.raises(CommandError, match="no such service"):
        configured(answers, tmp_path)
    assert answers.calls == 1
