"""Runs ``full`` again and again, a third of the runs killed with SIGKILL at a random moment, then once more in peace.

Afterwards nothing may be left on the machine: no process, no directory, no shared memory. Not part of ``control.sh
bench``: fifty runs take a quarter of an hour. ``ROUNDS`` and ``SEED`` are environment variables.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from pytest_iopbackup.stack import leftovers

ROUNDS = int(os.environ.get("ROUNDS", "50"))
SEED = int(os.environ.get("SEED", str(random.randrange(10**6))))


def main() -> int:
    """Run, kill, run once more, look; 1 where anything is left or an undisturbed run did not pass."""
    chance = random.Random(SEED)
    print(f"{ROUNDS} runs, seed {SEED}")
    before = _shared_memory()
    work = Path(tempfile.mkdtemp(prefix="iop-kill-", dir="/tmp"))
    work.chmod(0o711)
    bases = work / "b"
    bases.mkdir(mode=0o777)
    bases.chmod(0o777)
    outcomes: Counter[str] = Counter()
    try:
        typical = 15.0
        for number in range(1, ROUNDS + 1):
            limit = chance.uniform(0.3, typical) if number % 3 == 0 else None
            started = time.monotonic()
            outcome = _run(bases, work / "reports", limit)
            typical = time.monotonic() - started if limit is None else typical
            outcomes[outcome] += 1
            print(f"run {number}: {outcome} after {time.monotonic() - started:.1f} s", flush=True)
        print(f"one more: {_run(bases, work / 'reports', None)}")
        left = {
            "directories": [entry.name for entry in bases.iterdir()],
            "processes": [process.command for process in leftovers.find(bases)],
            "shared memory": sorted(_shared_memory() - before),
        }
    finally:
        leftovers.end(bases)
        shutil.rmtree(work, ignore_errors=True)
    print(f"outcomes: {dict(outcomes)}; left: {left}")
    return 0 if not any(left.values()) and set(outcomes) <= {"passed", "killed"} else 1


def _run(base: Path, reports: Path, limit: float | None) -> str:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--iop-scenario=full",
            f"--iop-work-dir={base}", f"--iop-report-dir={reports}"]  # fmt: skip
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        return "killed"
    if process.returncode == 0:
        return "passed"
    print(output.decode(errors="replace")[-3000:])
    return f"exit code {process.returncode}"


def _shared_memory() -> set[str]:
    """Name System V segments and POSIX ones."""
    system_v = {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}
    return system_v | {entry.name for entry in Path("/dev/shm").iterdir()}


if __name__ == "__main__":
    sys.exit(main())
