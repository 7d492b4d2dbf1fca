"""A stack that a trial has left green goes on to the next one that wants the same, up to a number of times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_iopbackup.dataset.spec import DatasetSpec
from pytest_iopbackup.faults.base import Fault, pace
from pytest_iopbackup.scenario.model import Scenario
from pytest_iopbackup.stack.base import Stack

WAL_SEGMENT = 16
"""PostgreSQL's default size of a WAL segment, in MiB."""
MOST = 8
"""Trials on one stack: its archive grows with each, and with it what verifying and restoring cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a stack is to be."""

    kind: str
    spec: DatasetSpec
    variables: Mapping[str, str]
    sizes: Mapping[str, str]
    wal_segment: int
    """Size of a WAL segment in MiB, where the stack's kind leaves that open."""
    durable: bool = False
    """Whether its server is to crash: see :class:`~pytest_iopbackup.stack.supply.Order`."""


def wanted_by(
    scenario: Scenario, kind: str, spec: DatasetSpec, faults: Mapping[str, type[Fault]], scale: float = 1
) -> Wanted:
    """Return what a scenario's stack is to be; ``scale`` is that of all time limits.

    Where it tries faults, that has the pace of trials and the thresholds that these take; and small WAL segments where
    that is open, for a trial ends dozens of them. The scenario's own variables come last.
    """
    variables: dict[str, str] = pace(scale) if scenario.faults else {}
    sizes: dict[str, str] = {}
    for name in scenario.faults:
        variables.update(faults[name].variables)
        sizes.update(faults[name].sizes)
    return Wanted(
        kind=kind,
        spec=spec,
        variables={**variables, **scenario.variables},
        sizes=sizes,
        wal_segment=1 if scenario.faults else WAL_SEGMENT,
        durable=scenario.crashes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """A stack on its way, and who has had it."""

    wanted: Wanted
    stack: Stack
    by: tuple[str, ...] = ()
    """The scenarios that have used it."""
    writes: int = 0
    """How often the workload has written: no two writes to one database may share a number."""


class Relay:
    """At most one stack, between two scenarios."""

    def __init__(self) -> None:
        self._waiting: Runner | None = None

    def offer(self, runner: Runner) -> bool:
        """Keep it for the next scenario; False if it has been used often enough."""
        if len(runner.by) >= MOST:
            return False
        self._waiting = runner
        return True

    def take(self, wanted: Wanted) -> Runner | None:
        """Hand it over to who wants the same. One that wants another ends it."""
        runner, self._waiting = self._waiting, None
        if runner is None or runner.wanted == wanted:
            return runner
        runner.stack.close()
        return None

    def close(self) -> None:
        """Take down what nobody took."""
        runner, self._waiting = self._waiting, None
        if runner is not None:
            runner.stack.close()
