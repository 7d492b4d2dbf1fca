"""One fault of each class of the catalogue, from green to green, as ``pytest --iop-scenario=…`` tries it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_iopbackup.detection import Answer
from pytest_iopbackup.faults.catalog import FAULTS
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.record import RunRecord
from pytest_iopbackup.reports.codec import from_json
from running import Run, remains, work_directory

pytestmark = pytest.mark.integration

ONE_OF_EACH = {
    "archiving": "queue-max-drop",
    "configuration": "backup-leaves-table-out",
    "corruption": "wal-rots-before-push",
    "disk": "wal-piles-up",
    "permissions": "configuration-unreadable",
    "postgresql": "data-checksums-off",
    "repository": "repository-recreated",
    "security": "access-rejected",
    "time": "backup-from-the-future",
    "workers": "backup-worker-stopped",
}


POSSIBLE = {fault.name: fault for fault in FAULTS if "local" in fault.stacks}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunRecord]:
    """Try them all, one after the other, as one run does."""
    directory = tmp_path_factory.mktemp("catalogue")
    wanted = [f"--iop-scenario={name}" for name in ONE_OF_EACH.values()]
    with work_directory() as base:
        # Half of a busy machine is ours: what has to be seen within seconds is given twice as many.
        scaled = "--iop-timeout-scale=2"
        with Run("pytest", "-q", *wanted, "--iop-stack=local", scaled, cwd=directory, base=base) as run:
            code = run.end(limit=900)
        yield from_json((directory / "reports/latest/record.json").read_text(), RunRecord)
        assert code == 0, run.output
        assert not remains(base)


def test_every_class_is_tried() -> None:
    assert set(ONE_OF_EACH) == {fault.tags[0] for fault in POSSIBLE.values()}


@pytest.mark.parametrize(("class_", "name"), ONE_OF_EACH.items())
def test_a_fault_of_each_class_is_reported_healed_and_nothing_is_lost(
    class_: str, name: str, record: RunRecord
) -> None:
    fault = POSSIBLE[name]
    assert (fault.tags[0], fault.needs_root) == (class_, False)
    (facts,) = [one.steps[0].fault for one in record.scenarios if one.name == name]
    assert facts is not None
    assert (facts.verdict, facts.trouble) == (Verdict.PASSED, None)
    assert facts.answer(facts.signal) is Answer.ALARM
    assert len(facts.readings) >= 17
    assert len(facts.proofs) == 2
