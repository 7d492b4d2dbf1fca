"""A stack goes from one trial to the next as long as it is left green, and to nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from running import Run, remains

pytestmark = pytest.mark.integration

# Four of the same, and one that is never reported. What they give as evidence is the stack that they were tried on.
CONFTEST = """\
from pathlib import Path

from pytest_iopbackup.faults.base import Expected, Fault


class StreamingOff(Fault):
    name = "a-first"
    title = "max_wal_senders is 0 after the next restart"
    expected = Expected(signal="configuration", reason="not in force yet: max_wal_senders")

    def inject(self, site):
        site.set("max_wal_senders", "0")

    def prove(self, site):
        return site.stack.directory.name

    def heal(self, site):
        site.set("max_wal_senders", None)


class Second(StreamingOff):
    name = "b-second"


class Unreported(StreamingOff):
    name = "c-unreported"
    expected = Expected(signal="space", reason="full", within=1)


class AfterIt(StreamingOff):
    name = "d-after-it"


class Other(StreamingOff):
    name = "e-other"
    variables = {"IOP_READY_LIMIT": "31"}


def pytest_iopbackup_register(registry):
    for fault in (StreamingOff, Second, Unreported, AfterIt, Other):
        registry.add_fault(fault)
    registry.add_scenarios(Path(__file__).parent / "drills")
"""
NAMES = ("a-first", "b-second", "c-unreported", "d-after-it", "e-other")


def test_a_stack_goes_on_while_it_is_green_and_wanted(tmp_path: Path, base: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (tmp_path / "drills").mkdir()
    for name in NAMES:
        text = f"name: {name}\ntitle: {name}\ndataset: {{users: 20}}\nsteps: [{{fault: {name}}}]\n"
        (tmp_path / "drills" / f"{name}.yaml").write_text(text, encoding="utf-8")
    wanted = [f"--iop-scenario={name}" for name in NAMES]
    with Run("pytest", "-q", *wanted, "--iop-stack=local", cwd=tmp_path, base=base) as run:
        assert run.end(limit=120) == 1, run.output
    record = json.loads((tmp_path / "reports/latest/record.json").read_text())
    facts = {one["name"]: one["steps"][0]["fault"] for one in record["scenarios"]}
    assert {name: fact["verdict"] for name, fact in facts.items()} == {
        **dict.fromkeys(NAMES, "passed"),
        "c-unreported": "failed",
    }
    stacks = {name: fact["evidence"] for name, fact in facts.items()}
    assert stacks == {
        "a-first": "s-main-1",
        "b-second": "s-main-1",
        "c-unreported": "s-main-1",  # and it went no further
        "d-after-it": "s-main-2",
        "e-other": "s-main-3",
    }
    assert not remains(base)
