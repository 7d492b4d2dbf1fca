"""Runs benchmarks one after the other, and writes one table of what they claim: for ``control.sh bench``.

    python benchmarks/run_all.py [NAME …]       without a name, all of them

The table is printed at the end and kept in ``reports/benchmarks.md``, with the machine and the day. A benchmark that
ends without a claim, or breaks, counts as unknown. Exit code 0 if every bound was met, 1 if one was not, 4 for a name
that is not there.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

from bounds import Claim
from tabulate import tabulate

FOLDER = Path(__file__).parent
TABLE = FOLDER.parent / "reports" / "benchmarks.md"


def main(wanted: list[str]) -> int:
    """Run them, print the table and keep it."""
    known = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    for name in wanted:
        if name not in known:
            print(f"there is no benchmark {name!r}\nHINT: there are {', '.join(known)}", file=sys.stderr)
            return 4
    rows, failed = [], False
    for name in wanted or known:
        print(f"--- {name}", flush=True)
        begun = time.monotonic()
        code, claims = run(name)
        took = f"{time.monotonic() - begun:.0f}"
        failed = failed or code != 0
        rows += [(name, claim.what, shown(claim), claim.limit, claim.verdict, took) for claim in claims]
        if not claims:
            rows.append((name, f"ended with exit code {code} before it claimed anything", "-", "-", "unknown", took))
    table = tabulate(rows, ("benchmark", "what", "figure", "bound", "verdict", "s"), "github", disable_numparse=True)
    moment = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    TABLE.write_text(f"# Benchmarks\n\n{moment}, {os.cpu_count()} cores, {platform.machine()}.\n\n{table}\n")
    print(f"\n{table}\n\n{TABLE}")
    return 1 if failed else 0


def run(name: str) -> tuple[int, list[Claim]]:
    """Run one; return its exit code, and what it claims."""
    with tempfile.TemporaryDirectory(prefix="iop-claims-") as directory:
        place = Path(directory, "claims.jsonl")
        argv = [sys.executable, str(FOLDER / f"bench_{name}.py")]
        code = subprocess.run(argv, env={**os.environ, "BENCHMARK_CLAIMS": str(place)}, check=False).returncode
        lines = place.read_text().splitlines() if place.exists() else []
    claims = [Claim(**json.loads(line)) for line in lines]
    return code or (not claims), claims


def shown(claim: Claim) -> str:
    """Return the figure as people read it."""
    return "-" if claim.figure is None else f"{claim.figure:.3g} {claim.unit}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
