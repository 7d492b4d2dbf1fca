"""The workload on a drill's stack, and the marks that are taken while it goes on."""

from __future__ import annotations

from collections.abc import Callable

from pytest_iopbackup.cluster import pgbackrest
from pytest_iopbackup.dataset.workload import WorkloadSpec, run_workload
from pytest_iopbackup.history import History
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.proof.mark import Mark, switch_wal, take_mark
from pytest_iopbackup.record import WriteFacts
from pytest_iopbackup.scenario.model import mark_names
from pytest_iopbackup.stack.base import Stack


def write(
    stack: Stack,
    history: History,
    spec: WorkloadSpec,
    *,
    prefix: str,
    limits: Limits,
    progress: Callable[[int, int], None],
) -> WriteFacts:
    """Run the workload and take ``spec.times`` marks meanwhile; all can be restored to when this returns.

    Raises UsageError, before anything is written, where a mark of such a name was taken before.
    """
    names = mark_names(prefix, spec.times)
    places = [history.place_for_mark(name) for name in names]
    taken: list[Mark] = []

    def mark(number: int) -> None:
        point = take_mark(stack, names[number - 1], places[number - 1], limits, settled=False, switched=False)
        history.add_mark(point)
        taken.append(point)

    stats = run_workload(stack.connect, spec, history.ledger, progress, mark)
    if taken:
        with stack.connect() as connection:
            last = switch_wal(connection)
        for segment in dict.fromkeys([*(point.segment for point in taken), last]):  # archived in whatever order
            pgbackrest.await_archived(stack, segment, limits)
    return WriteFacts(
        clients=spec.clients,
        acknowledged=stats.acknowledged,
        rolled_back=stats.rolled_back,
        indeterminate=stats.indeterminate,
        not_attempted=stats.not_attempted,
        marks=tuple(point.facts for point in taken),
    )
