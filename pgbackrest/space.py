"""The check of the file systems: room and inodes, writable, and when they will be full. Standard library only."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from helps import is_local, options
from memory import STATE, Memory
from postgres import judge_slots, server_facts
from probes import Findings, Problem, ask, broken, limit

SAMPLES = 120  # kept of each file system
REACH = 8  # growth is taken to go on for so many times as long as it was seen


@dataclass
class Volume:
    """One file system, and what the backup system has on it; sizes are in bytes."""

    size: int
    free: int
    inodes: int
    free_inodes: int
    mount: str
    places: list[str]

    @property
    def name(self) -> str:
        """Return what it is for and where it is."""
        return f"{', '.join(self.places)} ({self.mount})"


def places() -> Iterator[tuple[str, str]]:
    """Yield what has to have room, and where it is."""
    found = options()
    data = found.get("pg-path")
    if data:
        yield "data", data
        yield "pg_wal", f"{data}/pg_wal/."
    if is_local():
        yield "repository", found.get("repo-path", "/var/lib/pgbackrest")
    if found.get("archive-async") == "true":
        yield "spool", found.get("spool-path", "/var/spool/pgbackrest")
    yield "state", str(STATE)


def look(name: str, path: str) -> Volume:
    """Ask for a place's file system; raise a Problem if it hangs or is not there."""
    answer = ask("df", "--block-size=1", "--output=size,avail,itotal,iavail,target", "--", path)
    rows = answer.stdout.splitlines()[1:]
    if answer.returncode or not rows:
        raise Problem("critical", f"{name}: {' '.join(answer.stderr.split())}", "is its volume mounted?")
    *numbers, mount = rows[0].split(maxsplit=4)
    size, free, inodes, free_inodes = (int(text) if text.isdigit() else 0 for text in numbers)
    return Volume(size, free, inodes, free_inodes, mount, [name])


def space() -> Findings:
    """Judge each file system once."""
    volumes: dict[str, Volume] = {}
    mounts = Path("/proc/self/mountinfo").read_text()
    for name, path in places():
        try:
            volume = look(name, path)
        except Problem as problem:
            yield problem
            continue
        yield from judge_mount(name, options_of(mounts, volume.mount))
        volumes.setdefault(volume.mount, volume)
        if volumes[volume.mount] is not volume:
            volumes[volume.mount].places.append(name)
    memory = Memory("space")
    now = time.time()
    for volume in volumes.values():
        yield from judge(volume)
        samples = [s for s in memory.get(volume.mount, []) if now - limit("IOP_SPACE_FORECAST") < s[0] <= now]
        memory[volume.mount] = samples = thin([*samples, [round(now, 1), volume.free]])
        yield from judge_growth(volume, samples)
    for mount in set(memory) - set(volumes):
        del memory[mount]
    memory.save()
    with suppress(Problem):  # the check named configuration says so
        yield from judge_slots(server_facts())


def options_of(mounts: str, mount: str) -> tuple[set[str], set[str]]:
    """Return the options of a mount and of its file system (proc(5), mountinfo); the last one mounted there counts."""
    found: tuple[set[str], set[str]] = (set(), set())
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4]) == mount:
            found = (set(fields[5].split(",")), set(after.split()[-1].split(",")))
    return found


def judge_mount(name: str, found: tuple[set[str], set[str]]) -> Findings:
    """Judge whether a place can be written. The workers may have the data directory read-only; they never write it."""
    mount, system = found
    stuck = "ro" in system or ("ro" in mount and name not in {"data", "pg_wal"})
    hint = "was it remounted after an error? see the kernel's log"
    return broken((not stuck, "critical", f"{name} is mounted read-only", hint))


def judge(volume: Volume) -> Findings:
    """Judge what is free, in percent unless that is plenty."""
    for what, free, size, plenty in (
        ("bytes", volume.free, volume.size, limit("IOP_SPACE_ENOUGH") << 30),
        ("inodes", volume.free_inodes, volume.inodes, 1_000_000),
    ):
        percent = 100 * free / size if size else 100
        short = {"critical": limit("IOP_SPACE_CRITICAL"), "warning": limit("IOP_SPACE_WARNING")}
        status = next((status for status, least in short.items() if percent < least and free < plenty), None)
        if status:
            seen = f"{volume.name}: {free} of {size} {what} are free ({percent:.1f} %)"
            yield Problem(status, seen, "make room or enlarge it, before archiving or backups fail")
    yield f"{volume.name}: {100 * volume.free / max(volume.size, 1):.0f} % free"


def judge_growth(volume: Volume, samples: list[list[float]]) -> Findings:
    """Judge when it will be full, if it goes on filling as it did in the slower half of what was seen."""
    half = len(samples) // 2
    parts = (samples[: half + 1], samples[half:])
    if half < 2:
        return iter(())
    rate = min(speed(part) for part in parts)
    watched = samples[-1][0] - samples[0][0]
    reach = min(limit("IOP_SPACE_FORECAST"), REACH * watched)
    left = volume.free / rate if rate > 0 else float("inf")
    seen = f"{volume.name}: full in {left:.0f} s, if it goes on filling as in the last {watched:.0f} s"
    return broken((left > reach, "warning", seen, "make room or enlarge it; what grows there?"))


def speed(samples: list[list[float]]) -> float:
    """Return how many bytes were filled per second."""
    (begin, before), (end, after) = samples[0], samples[-1]
    return (before - after) / (end - begin) if end > begin else 0.0


def thin(samples: list[list[float]]) -> list[list[float]]:
    """Keep every other sample when there are too many, and the newest."""
    return samples if len(samples) <= SAMPLES else [*samples[:-1:2], samples[-1]]
