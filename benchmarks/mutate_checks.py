"""Mutation test of the checks: each check disabled, and each of its rules taken away, has to be noticed.

    python benchmarks/mutate_checks.py --record FILE [--record FILE …] [--only CHECK] [--jobs N] [--list]

``FILE`` is the ``record.json`` of a run of the faults (``pytest --iop-scenario=faults``): what the signals said there
tells which faults a rule reported. Their scenarios are run on a copy of the repository with the rule taken away, until
one fails because its fault is not reported. Rules about what no scenario can do have a test that must fail instead:
``mutants_tested.py``. Prints what killed each mutant, and the score; exit code 1 below 100 %. Not part of
``control.sh bench``: it takes half an hour.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutant_trials import ROOT, Outcome, Runner, Trial, candidates, copy, meant, trials
from mutants import Mutant, Source
from mutants_tested import SHOWN, TESTED
from tabulate import tabulate


def main() -> int:
    """Return 1 where a mutant survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, action="append", required=True, help="record.json of the faults' run")
    parser.add_argument("--only", metavar="CHECK", help="mutants of this check, or whose line has these words")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="print mutants and what may kill them, run nothing")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs is to be healed and ended as well
    known = trials(arguments.record)
    everything = list(Source(ROOT / "pgbackrest").mutants())
    mutants = [mutant for mutant in everything if mutant.signals]
    places = [f"{mutant.module}.{mutant.function}: {mutant.what}" for mutant in mutants]
    stale = [start for start in (*SHOWN, *TESTED) if not any(place.startswith(start) for place in places)]
    assert not stale, f"mutants_tested.py names rules that are not there: {stale}"
    only = arguments.only
    if only:
        mutants = [mutant for mutant in mutants if only in mutant.signals or only in mutant.name]
    for mutant in everything:
        if not mutant.signals:
            print(f"not mutated: {mutant.name}: no check comes here")
    if arguments.list:
        return listed(mutants, known)
    return tried(mutants, known, arguments.jobs)


def listed(mutants: list[Mutant], known: list[Trial]) -> int:
    """Print what may kill each."""
    bare = 0
    for mutant in mutants:
        found = [trial.fault for trial in candidates(mutant, known)]
        test = meant(mutant, TESTED)
        bare += not found and not test
        print(f"{mutant.name}\n    {', '.join([*found[:6], *([test] if test else [])]) or 'NOTHING'} ({len(found)})")
    print(f"{len(mutants)} mutants, {bare} without anything that may kill them")
    return 1 if bare else 0


def tried(mutants: list[Mutant], known: list[Trial], jobs: int) -> int:
    """Run them all, and print the score."""
    runner, begun = Runner(), time.monotonic()
    named = sorted({test for test in (meant(mutant, TESTED) for mutant in mutants) if test})
    if named:
        with copy(None) as directory:
            code, printed = runner.pytest(directory, *named)
            assert code == 0, f"these have to pass with every rule in place:\n{printed}"
    outcomes = []
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for outcome in pool.map(lambda mutant: runner.judge(mutant, known), mutants):
                outcomes.append(outcome)
                done = f"{len(outcomes)}/{len(mutants)} {time.monotonic() - begun:4.0f} s"
                print(f"{done}  {outcome.killer or 'SURVIVED'}  {outcome.mutant.name}", flush=True)
                for note in outcome.notes:
                    print(f"    {note[:300]}", flush=True)
        except KeyboardInterrupt:
            runner.stop()
            pool.shutdown(cancel_futures=True)
            raise
    return told(outcomes)


def told(outcomes: list[Outcome]) -> int:
    """Print the table and the score."""
    rows = [(outcome.mutant.name[:100], outcome.killer or "SURVIVED") for outcome in outcomes]
    print(tabulate(rows, ("taken away", "noticed by")))
    killed = [outcome for outcome in outcomes if outcome.killer]
    tests = sum("::" in outcome.killer for outcome in killed)
    score = 100 * len(killed) / max(len(outcomes), 1)
    print(
        f"killed {len(killed)}/{len(outcomes)} ({score:.1f} %): {len(killed) - tests} by a scenario, {tests} by a test"
    )
    return 0 if len(killed) == len(outcomes) > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
