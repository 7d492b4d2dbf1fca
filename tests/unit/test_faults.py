"""The catalogue of faults: what each says of itself, and that it can be called by name."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pytest_iopbackup import resources
from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.faults.archiving import ArchiveCommandFalse
from pytest_iopbackup.faults.base import Fault
from pytest_iopbackup.faults.catalog import FAULTS
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.options import Options
from pytest_iopbackup.registry import Registry, register_builtins
from pytest_iopbackup.scenario.catalog import select
from pytest_iopbackup.scenario.loader import load_scenario
from pytest_iopbackup.session import Session
from scripts import load

FOLDER = resources.scenarios() / "faults"
CLASSES = {
    "archiving", "repository", "permissions", "disk", "configuration", "postgresql", "corruption", "time", "workers",
    "security",
}  # fmt: skip
SIGNALS = {check.__name__.replace("_", "-") for check in load("checks").CHECKS} | {
    "check-worker", "backup-worker", "pgbackrest-check", "pgbackrest-verify", "pgbackrest-info", "backup", "restore",
}  # fmt: skip


def test_there_are_many_of_every_class() -> None:
    assert len(FAULTS) >= 55
    assert {fault.tags[0] for fault in FAULTS} == CLASSES
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_the_classes_of_the_systems_page_can_be_done_on_compose_in_several_forms() -> None:
    there = [fault for fault in FAULTS if "compose" in fault.stacks]
    for tag, least in (("repository", 4), ("archive-command", 6), ("permissions", 4), ("disk", 3)):
        assert len([fault for fault in there if tag in fault.tags]) >= least, tag


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_states_what_it_is_and_has_a_scenario_that_says_the_same(fault: type[Fault]) -> None:
    assert re.fullmatch("[a-z][a-z0-9-]{2,50}", fault.name)
    assert not fault.title.endswith(".")
    assert fault.expected.signal in SIGNALS
    assert not re.search(fault.expected.reason, "")
    assert 0 < fault.expected.within <= 30
    scenario = load_scenario(FOLDER / f"{fault.name}.yaml")
    assert scenario.title == fault.title
    assert scenario.tags == fault.tags
    assert scenario.faults == (fault.name,)


def test_each_scenario_of_the_folder_is_of_a_fault() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {fault.name for fault in FAULTS}


def test_a_folder_means_what_is_in_it(tmp_path: Path) -> None:
    files = select(["faults"], [resources.scenarios()], tmp_path)
    assert {path.stem for path in files} == {fault.name for fault in FAULTS}
    assert all(path.parent == FOLDER for path in files)


class NeedsRoot(ArchiveCommandFalse):
    needs_root = True
    stacks = frozenset({"local"})


@pytest.mark.parametrize(
    ("user", "kind", "words"),
    [
        (0, "local", None),
        (1000, "local", "the fault archive-command-false takes root on a local stack"),
        (0, "compose", "the fault archive-command-false is for stacks of kind local"),
    ],
)
def test_what_cannot_be_done_here_says_why(
    monkeypatch: pytest.MonkeyPatch, user: int, kind: str, words: str | None
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert NeedsRoot.obstacle(kind) == words


def test_what_is_named_must_be_possible_and_what_is_meant_by_a_group_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    session = Session(Options(stack="local"), "run", faults={NeedsRoot.name: NeedsRoot})
    path = FOLDER / "archive-command-false.yaml"
    assert session.sort_out([path], ()) == (
        [], {"archive-command-false": "the fault archive-command-false takes root on a local stack"}, set()
    )  # fmt: skip
    with pytest.raises(UsageError, match="takes root"):
        session.sort_out([path], [path])


def test_two_faults_of_one_name_are_refused() -> None:
    registry = Registry()
    register_builtins(registry)

    class Other(ArchiveCommandFalse):
        def prove(self, site: Site) -> str:
            return super().prove(site)

    with pytest.raises(UsageError, match="'archive-command-false'"):
        registry.add_fault(Other)
