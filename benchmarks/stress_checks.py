"""Runs the check worker on a healthy system under load, cycle after cycle: each alarm is a false one.

    python benchmarks/stress_checks.py [CYCLES [CLIENTS]] [--rate N] [--set NAME=VALUE …]

Both workers run as deployed, a check every second. Meanwhile clients write in bursts, full and differential backups are
taken and expire, and verify runs every few seconds. Prints alarms in full, and the slowest cycle; exit code 1 if there
was an alarm, or too little went on for its absence to say anything. Not part of ``control.sh bench``: 300 cycles take
ten minutes. ``--set`` gives the workers a variable more, or another value.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "integration"))
from pgbackrest_system import CHECKS, System, system

PACE = {
    "IOP_HEARTBEAT": "1",
    "DATABASE_BACKUP_FREQUENCY": "3",
    "DATABASE_BACKUP_LIMIT": "120",
    "IOP_FULL_BACKUP_AGE": "5",
    "IOP_VERIFY_FREQUENCY": "3",
    "PGBACKREST_REPO1_RETENTION_DIFF": "2",
}
BURST, PAUSE = 12, 4  # seconds


def main() -> int:
    """Count alarms; 1 if there was one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cycles", nargs="?", type=int, default=300)
    parser.add_argument("clients", nargs="?", type=int, default=4)
    parser.add_argument("--rate", type=int, default=500, help="transactions per second (default: 500)")
    parser.add_argument("--set", action="append", default=[], dest="more", metavar="NAME=VALUE")
    arguments = parser.parse_args()
    alarms, seconds = [], []
    with system() as stack, under_load(stack, arguments.clients, arguments.rate) as done:
        pace = {**PACE, **dict(setting.split("=", 1) for setting in arguments.more)}
        for number, (code, took, lines) in enumerate(cycles(stack, pace, done, arguments.cycles), 1):
            seconds.append(took)
            bad = [line for line in lines if not line.startswith("OK ")]
            if code or bad or [line.split()[1] for line in lines if line not in bad] != list(CHECKS):
                alarms.append(number)
                print(f"cycle {number}, exit code {code}:", *lines, sep="\n", flush=True)
        done["WAL segments"] = len(list(stack.repository.glob("archive/iop/*/*/*-*")))
    print(f"{len(seconds)} cycles, {len(alarms)} alarms, slowest cycle {max(seconds, default=0):.1f} s")
    print(", ".join(f"{name}: {count}" for name, count in sorted(done.items())))
    idle = {"full backups", "differential backups", "expired backups", "verify runs", "transactions"} - set(+done)
    if idle:
        print(f"that says little: no {', '.join(sorted(idle))}")
    return 1 if alarms or idle or len(seconds) < arguments.cycles else 0


@contextlib.contextmanager
def under_load(stack: System, clients: int, rate: int) -> Iterator[Counter[str]]:
    """Let clients write, in bursts: an idle server must raise no alarm, either."""
    done: Counter[str] = Counter()
    over = threading.Event()
    stack.must("pgbench", "--initialize", "--quiet", "--scale=3")
    stack.must(stack.scripts / "backup.sh")

    def write() -> None:
        load = ("pgbench", "--no-vacuum", f"--client={clients}", f"--rate={rate}", f"--time={BURST}")
        while not over.is_set():
            printed = stack.must(*load)
            done["transactions"] += int(re.findall(r"actually processed: (\d+)", printed)[0])
            over.wait(PAUSE)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield done
    finally:
        over.set()
        writer.join()


def cycles(
    stack: System, pace: dict[str, str], done: Counter[str], wanted: int
) -> Iterator[tuple[int, float, list[str]]]:
    """Run both workers; yield exit code, seconds and lines of each cycle of the check worker."""
    scripts = stack.scripts
    frequency = {"PGBACKREST_FREQUENCY": pace["DATABASE_BACKUP_FREQUENCY"]}
    with (
        stack.started(scripts / "worker.sh", "backup", scripts / "backup.sh", **pace, **frequency) as (backup, _),
        stack.started(scripts / "worker.sh", "check", scripts / "check.sh", **pace, PGBACKREST_FREQUENCY="1") as (
            check,
            _,
        ),
    ):
        reader = threading.Thread(target=count_backups, args=(backup, done))
        reader.start()
        lines: list[str] = []
        verified = set()
        for line in check.stdout or ():
            ended = re.search(r"run \d+ ended: exit code (\d+) after ([\d.]+) s", line)
            if ended:
                yield int(ended[1]), float(ended[2]), lines
                lines, wanted = [], wanted - 1
                with contextlib.suppress(OSError, ValueError):
                    verified.add(json.loads((stack.state / "remembered-iop-verify.json").read_text()).get("ended"))
                done["verify runs"] = len(verified - {None})
                if not wanted:
                    break
            elif " worker check: " not in line:
                lines.append(line.rstrip())
        for worker in (backup, check):
            worker.terminate()
            worker.wait(30)
        reader.join()


def count_backups(worker: subprocess.Popen[str], done: Counter[str]) -> None:
    """Read what the backup worker says, to its end."""
    for line in worker.stdout or ():
        kind = re.search(r"backup\.sh: (full|diff) backup of the stanza", line)
        done[{"full": "full backups", "diff": "differential backups"}[kind[1]] if kind else "lines"] += 1
        done["expired backups"] += len(re.findall(r"expire (?:full|diff) backup", line))
    del done["lines"]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs is to be ended as well
    begun = time.monotonic()
    code = main()
    print(f"{time.monotonic() - begun:.0f} s")
    sys.exit(code)
