"""What the plugin costs a project that has it installed and does not use it.

The limit is the same ``pytest --collect-only`` in an empty project with the plugin switched off, alternating.
Bound: 15 ms more.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

from bounds import Claim, judge
from tabulate import tabulate

BOUND_MS = 15.0
ROUNDS = int(os.environ.get("ROUNDS", "40"))
_COMPILED = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""An installed package has its bytecode; where Python may not write it, each start would compile everything."""
_COLLECT = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]


def main() -> int:
    """Time both in turn, print the difference; 1 where it is over the bound."""
    with tempfile.TemporaryDirectory() as project:
        for argv in (_COLLECT, [*_COLLECT, "-p", "no:iopbackup"]):
            _milliseconds(argv, project)  # compiles what has not been compiled
        pairs = [
            (_milliseconds([*_COLLECT, "-p", "no:iopbackup"], project), _milliseconds(_COLLECT, project))
            for _ in range(ROUNDS)
        ]
    without, with_plugin = zip(*pairs, strict=True)
    # Medians of each, not of the differences: one slow start must not count as the plugin's cost.
    more = statistics.median(with_plugin) - statistics.median(without)
    rows = [
        ("switched off", f"{statistics.median(without):.1f}", f"{min(without):.1f}"),
        ("installed, unused", f"{statistics.median(with_plugin):.1f}", f"{min(with_plugin):.1f}"),
        ("difference", f"{more:+.1f}", f"{min(with_plugin) - min(without):+.1f}"),
    ]
    print(tabulate(rows, ("pytest --collect-only", "median ms", "minimum ms"), disable_numparse=True))
    print(f"ratio {statistics.median(with_plugin) / statistics.median(without):.3f}")
    return judge(Claim(what="the plugin, installed and not used", figure=more, bound=BOUND_MS, unit="ms"))


def _milliseconds(argv: list[str], project: str) -> float:
    started = time.perf_counter()
    done = subprocess.run(argv, cwd=project, env=_COMPILED, capture_output=True, text=True, check=False)
    elapsed = (time.perf_counter() - started) * 1000
    if done.returncode != 5:  # pytest's code for "no tests collected"
        sys.exit(f"{argv}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return elapsed


if __name__ == "__main__":
    sys.exit(main())
