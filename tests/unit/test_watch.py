"""What the watch makes of the check worker's reports: which count, and how long it waits for a whole one."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_iopbackup.detection import Answer
from pytest_iopbackup.errors import IopError
from pytest_iopbackup.signals.base import Said
from pytest_iopbackup.signals.watch import Watch
from pytest_iopbackup.stack.base import CommandResult


class Worker:
    """A stack of which there is the check worker's report only."""

    kind = "local"

    def __init__(self, state: Path) -> None:
        self.places = SimpleNamespace(state=state)

    def host(self, _service: object) -> Worker:
        return self

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def report(self, started: float, finished: float, status: str = "ok", seen: str = "fine") -> None:
        """Leave a report of these times, in seconds from now."""
        now = datetime.now(timezone.utc)
        check = {"name": "repository", "status": status, "seen": seen, "hint": "", "code": None, "seconds": 0.1}
        document = {
            "version": 1,
            "stanza": "iop",
            "started": (now + timedelta(seconds=started)).isoformat(),
            "finished": (now + timedelta(seconds=finished)).isoformat(),
            "status": status,
            "checks": [check],
        }
        part = self.places.state / "part"
        part.write_text(json.dumps(document))
        part.replace(self.places.state / "check-status.json")


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path)


def watch_of(worker: Worker) -> Watch:
    watching = Watch(cast("Any", worker), 1.0, lambda: Said(Answer.SILENT))
    watching.begin()
    return watching


@pytest.fixture
def watch(worker: Worker) -> Watch:
    return watch_of(worker)


def waited(watch: Watch, limit: float = 5) -> float:
    begun = time.monotonic()
    watch.await_report(limit)
    return time.monotonic() - begun


def test_a_report_that_was_under_way_is_noted_and_not_enough(worker: Worker, watch: Watch) -> None:
    worker.report(-1, 0.1, "critical", "it was seen at once")
    assert waited(watch, 0.3) >= 0.3
    assert watch.readings["repository"].answer is Answer.ALARM


def test_one_that_began_afterwards_ends_the_wait(worker: Worker, watch: Watch) -> None:
    worker.report(-1, 0.1)
    timer = threading.Timer(0.4, worker.report, (-0.1, 0.1, "critical", "the checks saw it"))
    timer.start()
    assert 0.3 < waited(watch) < 4
    timer.join()
    assert watch.readings["repository"].said == "critical: the checks saw it"


def test_one_that_ended_before_says_nothing(worker: Worker, watch: Watch) -> None:
    worker.report(-3, -2, "critical", "long ago")
    assert waited(watch, 0.2) >= 0.2
    assert watch.readings == {}


def test_none_at_all_is_waited_for_no_longer_than_said(watch: Watch) -> None:
    assert 0.2 <= waited(watch, 0.2) < 4
    assert watch.readings == {}


def test_to_begin_again_is_to_wait_again(worker: Worker, watch: Watch) -> None:
    worker.report(0, 0)
    assert waited(watch) < 4
    watch.begin()
    assert waited(watch, 0.2) >= 0.2


def test_green_is_a_report_begun_afterwards_or_so_recently(worker: Worker, watch: Watch) -> None:
    worker.report(-2, -1)
    watch.await_green(1, recent=3)
    with pytest.raises(IopError, match="the check worker was not green within 0"):
        watch.await_green(0.2)
    worker.report(0.5, 0.6, "warning", "nearly")
    with pytest.raises(IopError, match="nearly"):
        watch.await_green(0.2)


class Lagging(Worker):
    """Its container's health check fails until it is told otherwise."""

    well = False

    def health(self, _service: object) -> CommandResult:
        said = "all is well" if self.well else "the last run ended with exit code 2"
        return CommandResult(("docker", "inspect"), 0 if self.well else 1, said, "", 0.0)


@pytest.fixture
def lagging(tmp_path: Path) -> Lagging:
    return Lagging(tmp_path)


def test_health_is_given_time_to_follow_a_green_report(lagging: Lagging) -> None:
    watching = watch_of(lagging)
    lagging.report(0, 0)
    timer = threading.Timer(0.4, setattr, (lagging, "well", True))
    timer.start()
    watching.await_healthy(5)
    timer.join()


def test_health_that_does_not_follow_is_an_alarm(lagging: Lagging) -> None:
    lagging.report(0, 0)
    with pytest.raises(IopError, match=r"after a green report: .*the last run ended with exit code 2"):
        watch_of(lagging).await_healthy(0.3)


def test_another_alarm_meanwhile_is_one_at_once(lagging: Lagging) -> None:
    lagging.report(0, 0)
    timer = threading.Timer(0.3, lagging.report, (0, 0, "critical", "broken again"))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(IopError, match="green, and then no more: repository: critical: broken again"):
        watch_of(lagging).await_healthy(20)
    assert time.monotonic() - begun < 10
    timer.join()
