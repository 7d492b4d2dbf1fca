"""What a fault costs on local stacks, two at a time, and what it would cost to make each stack from nothing.

The whole catalogue is tried, everything in the procedure included, from every check green to both restores. With
``-n 2`` two trials stand side by side, so a fault takes half of a trial's time; the bound is 4 s for the median. Beside
it, timed in the same run: a fresh stack (initdb, dataset, a full and a differential backup), and one copied from the
template, which the first trial on a stack waits for.
``FAULTS`` in the environment names others, such as ``tag:archiving``; ``RECORD`` says where to keep the run's record,
which mutate_checks.py takes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bounds import Claim, judge
from tabulate import tabulate

from pytest_iopbackup import resources
from pytest_iopbackup.dataset.load import load
from pytest_iopbackup.dataset.spec import DatasetSpec
from pytest_iopbackup.drill import nothing
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.stack.base import Stack
from pytest_iopbackup.stack.binaries import find_binaries
from pytest_iopbackup.stack.local_services import LocalSettings
from pytest_iopbackup.stack.location import base_directory
from pytest_iopbackup.stack.supply import Order
from pytest_iopbackup.stack.template import clone, ensure_template
from pytest_iopbackup.stack.workspace import Workspace

BOUND = 4.0
SIDE_BY_SIDE = 2
RECORD = os.environ.get("RECORD")
WORDS = os.environ.get("FAULTS", "faults").split()


def main() -> int:
    """Time both, print them; 1 where a trial did not pass or the bound is missed."""
    fresh, copied = time_stacks()
    with tempfile.TemporaryDirectory() as reports:
        wanted = [f"--iop-scenario={word}" for word in WORDS]
        argv = [sys.executable, "-m", "pytest", "-q", "-n", str(SIDE_BY_SIDE), "--iop-stack=local", *wanted]
        begun = time.monotonic()
        code = subprocess.run([*argv, f"--iop-report-dir={reports}"], check=False).returncode
        wall = time.monotonic() - begun
        if code not in {0, 1}:  # pytest has said why
            return code
        text = (Path(reports) / "latest" / "record.json").read_text()
    if RECORD:
        Path(RECORD).write_text(text)
    record = json.loads(text)
    whole = [scenario["setup_seconds"] + scenario["seconds"] for scenario in record["scenarios"]]
    laps = [scenario["steps"][0]["fault"]["laps"] for scenario in record["scenarios"]]
    each = statistics.median(whole) / SIDE_BY_SIDE
    stages = {name: statistics.median(lap[name] for lap in laps if name in lap) for name in laps[0]}
    rows = [
        ("a trial, set-up included, median", f"{statistics.median(whole):.2f}"),
        *((f"  of it: {name}", f"{seconds:.2f}") for name, seconds in stages.items()),
        ("per fault, two at a time, median", f"{each:.2f}"),
        ("the whole run, per fault", f"{wall / len(whole):.2f}"),
        ("a stack copied from the template", f"{copied:.2f}"),
        ("a fresh stack", f"{fresh:.2f}"),
        ("per fault with a fresh stack each", f"{each + (fresh - copied) / SIDE_BY_SIDE:.2f}"),
    ]
    print(tabulate(rows, (f"{len(whole)} faults", "s"), disable_numparse=True))
    passed = sum(scenario["verdict"] == "passed" for scenario in record["scenarios"])
    return judge(
        Claim(what="per fault, two at a time, median", figure=each, bound=BOUND, unit="s"),
        Claim(what="faults that passed, of all", figure=passed / len(whole), bound=1.0, unit="", at_least=True),
    )


def time_stacks() -> tuple[float, float]:
    """Return the seconds that a stack from nothing takes, and one that is a copy."""
    settings = LocalSettings(binaries=find_binaries(), limits=Limits())
    workspace = Workspace(base_directory(None))

    def seed(stack: Stack) -> None:
        with stack.connect() as connection:
            load(connection, DatasetSpec(seed=42, users=200), nothing)

    order = Order(
        workspace=workspace.path,
        directory=workspace.path / "s-1",
        key="fresh",
        seed=seed,
        variables={},
        sizes={},
        wal_segment=1,
        stage=lambda _name: nothing,
        failed=lambda _stack: None,
    )
    try:
        begun = time.monotonic()
        template = ensure_template(order, settings, resources.stack_half())
        fresh = time.monotonic() - begun
        begun = time.monotonic()
        stack = clone(template, order, settings)
        copied = time.monotonic() - begun
        stack.close()
    finally:
        workspace.close()
    return fresh, copied


if __name__ == "__main__":
    sys.exit(main())
