"""Tries a mutant: which scenarios may notice that a rule is gone, and whether they do; for mutate_checks.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mutants import Mutant
from mutants_tested import SHOWN, TESTED

ROOT = Path(__file__).parents[1]
PARTS = ("compose.yaml", "control.sh", "control", "image", "pgbackrest", "pyproject.toml", "scenarios", "src", "tests")
UNREPORTED = "did not report it within"  # as signals/watch.py has it
TRIES = 8  # scenarios of a mutant
PATIENCE = 240  # seconds for one


@dataclass(frozen=True)
class Trial:
    """A fault that was reported, by whom and how; ``reason`` is what had to be said."""

    fault: str
    signal: str
    reason: str
    said: str
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant; ``killer``: the scenario or test that failed."""

    mutant: Mutant
    killer: str
    notes: tuple[str, ...] = ()


def trials(files: list[Path]) -> list[Trial]:
    """Read the faults that were reported, of each the newest trial."""
    found: dict[str, Trial] = {}
    for file in files:
        for scenario in json.loads(file.read_text())["scenarios"]:
            for fault in filter(None, (step["fault"] for step in scenario["steps"])):
                said = [reading["said"] for reading in fault["readings"] if reading["signal"] == fault["signal"]]
                if scenario["verdict"] == "passed" and scenario["stack"] == "local":
                    seconds = scenario["seconds"]
                    found[scenario["name"]] = Trial(
                        scenario["name"], fault["signal"], fault["reason"], said[0], seconds
                    )
    return list(found.values())


def candidates(mutant: Mutant, known: list[Trial]) -> list[Trial]:
    """Return the trials that may fail, the likeliest first: those whose signal said nothing else that would do."""
    ranked = []
    shown = meant(mutant, SHOWN)
    if shown:
        return [trial for trial in known if trial.fault == shown]
    if not mutant.messages and meant(mutant, TESTED):
        return []  # any fault might do, and none is known to
    for trial in known:
        if trial.signal not in mutant.signals:
            continue
        rest = trial.said
        for message in mutant.messages:
            rest = re.sub(message, "", rest, flags=re.DOTALL)
        if rest != trial.said or not mutant.messages:
            ranked.append((re.search(trial.reason, rest) is not None, trial.seconds, trial.fault, trial))
    return [trial for *_, trial in sorted(ranked)]


def meant(mutant: Mutant, table: dict[str, str]) -> str | None:
    """Return what a table has for it."""
    place = f"{mutant.module}.{mutant.function}: {mutant.what}"
    return next((killer for start, killer in table.items() if place.startswith(start)), None)


@contextmanager
def copy(mutant: Mutant | None) -> Iterator[Path]:
    """Give a copy of the repository, with the mutant in it."""
    with tempfile.TemporaryDirectory(prefix="iop-mutant-") as place:
        Path(place).chmod(0o755)
        directory = Path(place, "copy")
        for part in (ROOT / name for name in PARTS):
            if part.is_dir():
                shutil.copytree(part, directory / part.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                directory.mkdir(exist_ok=True)
                shutil.copy2(part, directory)
        if mutant:
            mutant.apply(directory / "pgbackrest")
        yield directory


class Runner:
    """Runs pytest on copies, and ends what it has started."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[str]] = set()
        self._over = threading.Event()

    def pytest(self, directory: Path, *arguments: str) -> tuple[int, str]:
        """Return exit code and output; a run that takes too long is stopped as by Ctrl-C, so that it heals."""
        if self._over.is_set():
            return -1, "stopped"
        process = subprocess.Popen(
            (sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments),
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(directory / "src")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._processes.add(process)
        try:
            printed, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            printed, _ = process.communicate()
        finally:
            self._processes.discard(process)
        return process.returncode, printed

    def stop(self) -> None:
        """End what runs."""
        self._over.set()
        for process in tuple(self._processes):
            process.send_signal(signal.SIGINT)

    def scenario(self, directory: Path, name: str) -> str:
        """Run one; return nothing if it passed, else why not."""
        reports = directory.with_name("reports")
        shutil.rmtree(reports, ignore_errors=True)
        code, printed = self.pytest(
            directory, f"--iop-scenario={name}", "--iop-stack=local", f"--iop-report-dir={reports}"
        )
        if code == 0:
            return ""
        try:
            (scenario,) = json.loads((reports / "latest" / "record.json").read_text())["scenarios"]
            troubles = [step["fault"]["trouble"] for step in scenario["steps"] if step["fault"]]
        except (OSError, ValueError, KeyError):
            troubles = []
        return str(next(filter(None, troubles), printed[-300:]))

    def judge(self, mutant: Mutant, known: list[Trial]) -> Outcome:
        """Try what may notice that the rule is gone."""
        notes: list[str] = []
        with copy(mutant) as directory:
            for trial in candidates(mutant, known)[:TRIES]:
                trouble = self.scenario(directory, trial.fault)
                notes.append(f"{trial.fault}: {' '.join(trouble.split()) or 'passed'}")
                if UNREPORTED in trouble:
                    return Outcome(mutant, trial.fault, tuple(notes))
            test = meant(mutant, TESTED)
            if test:
                code, printed = self.pytest(directory, test)
                if code == 1:
                    return Outcome(mutant, test, tuple(notes))
                notes.append(f"{test}: exit code {code}: {printed[-300:]}")
        return Outcome(mutant, "", tuple(notes) or ("no fault of the record shows it",))
