"""Scenario files as pytest collects and runs them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_iopbackup.cluster.targets import By, Target, validate
from pytest_iopbackup.errors import ScenarioError, TargetError
from pytest_iopbackup.names import suggest
from pytest_iopbackup.proof.verdict import describe
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import ScenarioRecord
from pytest_iopbackup.reports.table import step_table
from pytest_iopbackup.scenario.loader import load_scenario
from pytest_iopbackup.scenario.model import Fault, Restore, Scenario

if TYPE_CHECKING:
    from pytest_iopbackup.active import Active


class ScenarioNotPassedError(AssertionError):
    """A scenario's verdict was not ``passed``."""

    def __init__(self, record: ScenarioRecord) -> None:
        super().__init__(f"{record.verdict.value}: {record.reason}")
        self.record = record


class ScenarioFile(pytest.File):
    """A YAML file with one scenario."""

    active: Active

    @classmethod
    def make(cls, parent: pytest.Collector, path: Path, active: Active) -> ScenarioFile:
        """Return the collector for a file."""
        file: ScenarioFile = cls.from_parent(parent, path=path)
        file.active = active
        return file

    def collect(self) -> Iterator[pytest.Item]:
        """Read and validate the file."""
        try:
            scenario = load_scenario(self.path)
            _check_targets(scenario)
            _check_faults(scenario, self.active.registry.faults)
        except ScenarioError as error:
            raise self.CollectError(str(error)) from None
        item: ScenarioItem = ScenarioItem.from_parent(self, name=scenario.name)
        item.scenario = scenario
        item.active = self.active
        yield item


class ScenarioItem(pytest.Item):
    """One scenario, run once."""

    scenario: Scenario
    active: Active
    record: ScenarioRecord | None = None

    def runtest(self) -> None:
        """Run the scenario; anything but ``passed`` fails the test."""
        self.record = self.active.run(self.scenario)
        if self.record.verdict is not Verdict.PASSED:
            raise ScenarioNotPassedError(self.record)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the step table and the differences instead of a traceback into the harness."""
        if isinstance(excinfo.value, ScenarioNotPassedError):
            return _explain(excinfo.value.record)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Name the scenario by its file."""
        return self.path, 0, f"scenario {self.name}"


def _check_targets(scenario: Scenario) -> None:
    """Raise ScenarioError for a raw target that no repository could restore: that needs no stack to find out."""
    for step in scenario.steps:
        action = step.action
        if isinstance(action, Restore) and action.value is not None:
            try:
                validate(Target(by=By(action.by), value=action.value), datetime.now(timezone.utc))
            except TargetError as error:
                raise ScenarioError(f"{scenario.path}:{step.line}: {error.message}", hint=error.hint) from None


def _check_faults(scenario: Scenario, known: Collection[str]) -> None:
    """Raise ScenarioError for a fault that nobody has registered."""
    for step in scenario.steps:
        if isinstance(step.action, Fault) and step.action.name not in known:
            raise ScenarioError(
                f"{scenario.path}:{step.line}: there is no fault {step.action.name!r}",
                hint=suggest(step.action.name, known),
            )


def _explain(record: ScenarioRecord) -> str:
    """Return what pytest shows for a scenario that did not pass: the verdict, the steps, the differences."""
    parts = [f"{record.verdict.value.upper()}: {record.reason}", step_table(record)]
    parts += [describe(step.proof) for step in record.steps if step.proof and step.verdict is not Verdict.PASSED]
    return "\n\n".join(parts)
