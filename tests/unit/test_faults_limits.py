"""The time within which a fault has to be reported allows for what its own limits make a cycle of checks take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_iopbackup.dataset.spec import DatasetSpec
from pytest_iopbackup.faults.base import PACE, pace
from pytest_iopbackup.faults.repository import RepositoryHangs
from pytest_iopbackup.relay import wanted_by
from pytest_iopbackup.scenario.model import Fault, Scenario, Step

WORK = 3
"""Seconds for what a cycle does besides waiting, of two cycles, on a machine that is busy."""


def test_a_repository_that_hangs_may_be_reported_by_the_cycle_after_the_one_under_way() -> None:
    limits = {**PACE, **RepositoryHangs.variables}
    # In each, one answer is waited for in vain, and so is pgbackrest check: one after the other.
    answer, check = (int(limits[name]) for name in ("IOP_PROBE_TIMEOUT", "IOP_ARCHIVE_CHECK_TIMEOUT"))
    assert check > int(limits["PGBACKREST_ARCHIVE_TIMEOUT"]), "pgBackRest's own reason says more"
    assert RepositoryHangs.expected.within >= 2 * (answer + check) + WORK
    assert f"within {answer} s" in RepositoryHangs.expected.reason


def test_a_slow_machine_is_given_longer_limits_and_no_fewer_checks() -> None:
    slow = {name: float(value) for name, value in pace(2.5).items()}
    usual = {name: float(value) for name, value in PACE.items()}
    assert slow.pop("PGBACKREST_CHECK_FREQUENCY") == usual.pop("PGBACKREST_CHECK_FREQUENCY")
    assert slow == {name: value * 2.5 for name, value in usual.items()}
    assert pace(0.5) == PACE, "a trial in a hurry has a stack as usual: shorter limits would only be missed"


def test_a_scenario_of_faults_has_a_stack_of_that_pace() -> None:
    trial = Scenario(name="x", title="x", path=Path("x.yaml"), steps=(Step("x", Fault("repository-hangs"), 1),))
    faults = {"repository-hangs": RepositoryHangs}
    wanted = wanted_by(trial, "local", DatasetSpec(seed=1, users=20), faults, 2)
    assert wanted.variables == {**pace(2), **RepositoryHangs.variables}
    assert wanted.variables["PGBACKREST_ARCHIVE_TIMEOUT"] == "4"
    assert wanted_by(replace(trial, steps=()), "local", DatasetSpec(seed=1, users=20), faults, 2).variables == {}
