"""Processes of a stack, by their ids: they are found, stopped, continued and killed where their service runs."""

from __future__ import annotations

import json

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.stack.base import Service


def backend(site: Site, kind: str) -> int:
    """Return the id of a process of PostgreSQL by its ``backend_type``. Raises ProofError where there is none."""
    found = site.sql(f"SELECT pid FROM pg_stat_activity WHERE backend_type = '{kind}'")
    if not found:
        raise ProofError(f"PostgreSQL has no {kind}")
    return int(found[0][0])


def postmaster(site: Site) -> int:
    """Return the id of PostgreSQL's main process (the first line of ``postmaster.pid``)."""
    return int(site.script('head -n 1 "$1"', site.stack.places.data / "postmaster.pid"))


def worker(site: Site, service: Service) -> int:
    """Return the id of a worker, by its record."""
    record = json.loads(site.script('cat "$1"', site.stack.places.state / f"{service.value}.json"))
    return int(record["pid"])


def children(site: Site, pid: int, name: str = "") -> list[int]:
    """Return the ids of a process's children, of those whose program has this name if one is given.

    Without ``pgrep``, which a container need not have.
    """
    script = 'grep -slx "PPid:[[:space:]]*$1" /proc/[0-9]*/status | xargs -r grep -slx "Name:[[:space:]]*$2" || true'
    found = site.run("sh", "-c", script, "sh", str(pid), name or ".*").stdout.split()
    return [int(path.split("/")[2]) for path in found]


def send(site: Site, signal: str, *pids: int, service: Service = Service.DATABASE) -> None:
    """Send a signal; whoever has ended meanwhile does not matter."""
    for pid in pids:
        site.run("sh", "-c", f"kill -{signal} {pid}", service=service, check=False)


def require_stopped(site: Site, *pids: int) -> str:
    """Return the states of processes. Raises ProofError unless all are stopped (``T`` in proc(5))."""
    states = {pid: site.script('cut -d " " -f 3 "/proc/$1/stat"', str(pid)).strip() for pid in pids}
    if set(states.values()) != {"T"}:
        raise ProofError(f"process states: {states}")
    return f"state T: process {', '.join(map(str, pids))}"
