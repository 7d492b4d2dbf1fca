#!/usr/bin/env python3
"""status.py [--colour] [--present] [--compose=SHA256]: one screen on the whole system. Standard library only.

For control.sh status; it changes nothing. With --present the exit code is of what is there now, whatever the last drill
had to say. A drill of a compose.yaml with another checksum is not of this system.

Standard input: one line of JSON per container, as control.sh takes it from docker inspect; an empty line; then the
record of the last drill, if there is one. All else is asked here, each question with a time limit, so that a part that
does not answer is named and hides no other. Exit code 0: all is healthy; else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

from probes import STANZA, Problem, stop
from sections import (
    Row,
    Rows,
    ask_repository,
    ask_server,
    backups,
    checks,
    drill,
    recovery,
    restore,
    services,
    volume,
)

VOLUMES = {
    "database_data": "/var/lib/postgresql",
    "pg_backrest_repo": "/var/lib/pgbackrest",
    "pg_backrest_spool": "/var/spool/pgbackrest",
    "pg_backrest_state": "/var/lib/iop-backup",
}
COLOURS = {"good": "32", "note": "33", "bad": "31"}
WIDTH = 80
LABEL = 20  # columns


def section(rows: Callable[[], Rows]) -> list[Row]:
    """Collect a section's rows; what goes wrong in it is its last row."""
    found: list[Row] = []
    try:
        found.extend(rows())
    except Problem as problem:
        found.append(Row("unknown", f"{problem.seen}. HINT: {problem.hint}", "bad"))
    except FileNotFoundError as error:
        found.append(Row("unknown", f"nothing is recorded yet ({error.filename})", "note"))
    except Exception as error:  # an answer of a shape that nobody foresaw must not hide the rest
        found.append(Row("unknown", f"{type(error).__name__}: {error}", "bad"))
    return found


def need(fact: Any) -> Any:
    """Return the fact, or raise the problem that stands in its place."""
    if isinstance(fact, Problem):
        raise fact
    return fact


def attempt(question: Callable[[], Any]) -> Any:
    """Return the answer or the problem that there was with it."""
    try:
        return question()
    except Problem as problem:
        return problem


def gather(containers: list[dict[str, Any]], record: str, compose_file: str = "") -> dict[str, list[Row]]:
    """Ask everything at the same time; return the sections of the screen."""
    with ThreadPoolExecutor(len(VOLUMES) + 2) as pool:
        repository, server = pool.submit(attempt, ask_repository), pool.submit(attempt, ask_server)
        volumes = list(pool.map(section, (partial(volume, name, path) for name, path in VOLUMES.items())))
        info, archiver = repository.result(), server.result()
    sections = {
        "Services": section(lambda: services(containers)),
        "Restore": section(lambda: restore(containers)),
        "Backups": section(lambda: backups(need(info))),
        "Can be recovered": section(lambda: recovery(need(info), archiver)),
        "Last check": section(checks),
        "Volumes": [row for rows in volumes for row in rows],
        "Last drill": section(lambda: drill(record, compose_file)),
    }
    return {title: rows for title, rows in sections.items() if rows}


def render(sections: Mapping[str, list[Row]], *, colour: bool) -> str:
    """Return the screen."""
    lines = []
    for title, rows in sections.items():
        lines.append(title)
        for row in rows:
            wrapped = [part for text in row.text.split("\n") for part in textwrap.wrap(text, WIDTH - LABEL - 2)] or [""]
            label = f"{row.label:{LABEL}}"
            if colour and row.mood:
                label = f"\033[{COLOURS[row.mood]}m{label}\033[0m"
            lines.append(f"  {label}{wrapped[0]}")
            lines.extend(" " * (LABEL + 2) + part for part in wrapped[1:])
    bad = [f"{title}: {row.label}" for title, rows in sections.items() for row in rows if row.mood == "bad"]
    verdict = f"NOT HEALTHY ({'; '.join(bad)})" if bad else "HEALTHY"
    head = textwrap.wrap(f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} UTC  stanza {STANZA}  {verdict}", WIDTH)
    return "\n".join([*head, *lines]) + "\n"


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--colour", action="store_true")
    parser.add_argument("--present", action="store_true")
    parser.add_argument("--compose", default="", metavar="SHA256")
    arguments = parser.parse_args()
    os.environ.setdefault("IOP_PROBE_TIMEOUT", "5")  # someone is waiting
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    described, _, record = sys.stdin.read().partition("\n\n")
    sections = gather([json.loads(line) for line in described.splitlines() if line], record, arguments.compose)
    if arguments.present:
        sections["Last drill"] = [
            replace(row, mood="note") if row.mood == "bad" else row for row in sections["Last drill"]
        ]
    sys.stdout.write(render(sections, colour=arguments.colour))
    return 1 if any(row.mood == "bad" for rows in sections.values() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
