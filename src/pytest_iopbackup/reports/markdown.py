"""The report that people read: what was done, how long it took, what was proven."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_iopbackup.proven import RestoreFacts, Verdict
from pytest_iopbackup.record import BackupFacts, RunRecord, ScenarioRecord, StepRecord
from pytest_iopbackup.reports.grid import SIGN, cell, grid
from pytest_iopbackup.reports.losses import losses
from pytest_iopbackup.reports.matrix import faults_of, matrix, summary
from pytest_iopbackup.reports.proofs import points_section, proofs_section
from pytest_iopbackup.reports.text import note, number, size


def to_markdown(run: RunRecord) -> str:
    """Return the whole report."""
    return "\n".join(_run(run)) + "\n"


def _run(run: RunRecord) -> Iterator[str]:
    yield f"# Restore drill {run.run}: {SIGN[run.verdict]}"
    yield ""
    seconds = (run.finished - run.started).total_seconds()
    count = f"{len(run.scenarios)} scenario{'s' if len(run.scenarios) != 1 else ''}"
    yield f"{run.started:%Y-%m-%d %H:%M:%S} UTC, {seconds:.0f} s, {count}."
    yield from _matrix_of_faults(run)
    for scenario in run.scenarios:
        yield from _scenario(scenario)
    if run.not_run:
        yield "\n## Not run\n"
        yield grid(("scenario", "why"), [(name, cell(why)) for name, why in run.not_run.items()])
    yield "\n## Versions\n"
    yield grid(("what", "version"), list(run.versions.items()))


def _matrix_of_faults(run: RunRecord) -> Iterator[str]:
    faults = faults_of(run)
    if faults:
        yield "\n## Detection matrix\n"
        yield f"{summary(faults)}.\n"
        yield grid(*matrix(faults))
        yield (
            "\nSeconds from the injection to a signal's alarm, in bold for the one that has to report the fault; · is "
            "silence. ★: `pgbackrest check` by itself is known to see nothing.\n"
        )


def _fault(steps: tuple[StepRecord, ...]) -> Iterator[str]:
    for fault in (step.fault for step in steps if step.fault):
        yield f"\n### Fault `{fault.name}`\n"
        yield f"{fault.title}. Seen to be there: {fault.evidence or 'it never was'}."
        yield f"It had to be reported by `{fault.signal}` within {fault.within:g} s, with `{fault.reason}`.\n"
        rows = [(f"`{one.signal}`", one.answer.value, f"{one.after:.1f}", cell(one.said)) for one in fault.readings]
        yield grid(("signal", "answer", "after s", "said"), rows)
        yield f"\n{fault.written} transactions were acknowledged while it lasted."
        if fault.lost:
            lost = fault.lost.transactions
            yield (
                f"The window is lost by nature: no restore can stop at {lost.total} transactions, which the full "
                f"backup {fault.lost.backup} holds ({'; '.join(f'`{example}`' for example in lost.examples[:5])} …)."
            )
        yield "Seconds: " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in fault.laps.items()) + "."


def _scenario(scenario: ScenarioRecord) -> Iterator[str]:
    yield f"\n## {scenario.name}: {SIGN[scenario.verdict]}\n"
    yield f"{scenario.title}.\n"
    if scenario.verdict is not Verdict.PASSED:
        yield f"**{scenario.verdict.value.capitalize()}:** {scenario.reason}\n"
    yield from _story(scenario)
    yield (
        f"\nSet-up {scenario.setup_seconds:.1f} s, steps {scenario.seconds:.1f} s; {scenario.stack} stack, "
        f"{number(scenario.users)} users, seed {scenario.seed}.\n"
    )
    rows = [
        (
            step.number,
            f"`{step.title}`",
            SIGN[step.verdict],
            f"{step.seconds:.1f}",
            cell(note(step) if step.verdict is Verdict.PASSED else step.reason or ""),
        )
        for step in scenario.steps
    ]
    yield grid(("#", "step", "verdict", "seconds", "what was seen"), rows)
    left = scenario.planned - len(scenario.steps)
    if left:
        yield f"\n{left} step{'s were' if left > 1 else ' was'} not run."
    yield from _fault(scenario.steps)
    for step in scenario.steps:
        if step.crash:
            yield from losses(step.crash)
    yield from _backups(scenario.steps)
    yield from _restores(scenario.steps)
    yield from proofs_section(scenario.steps)
    yield from points_section(scenario.steps)
    for name, tail in scenario.logs.items():
        yield f"\n<details><summary>{name}, last lines</summary>\n\n```\n{tail}\n```\n</details>"
    yield "\n### Configuration under test\n"
    yield grid(("file", "SHA-256"), [(name, f"`{digest[:16]}…`") for name, digest in scenario.configuration.items()])


def _story(scenario: ScenarioRecord) -> Iterator[str]:
    """Tell the run in sentences: what was there, what happened to it, what came back."""
    told = {step.verb: step for step in scenario.steps}
    if "backup" in told:
        kinds = " and ".join(dict.fromkeys(step.backup.type for step in scenario.steps if step.backup))
        yield f"- A database of {number(scenario.users)} users was seeded and backed up ({kinds})."
    writes = [step.write for step in scenario.steps if step.write]
    if writes:
        committed = sum(write.acknowledged for write in writes)
        yield f"- {number(committed)} transactions were committed and kept in the ledger."
    for step in scenario.steps:
        if step.mistake:
            hit = f" hit {number(step.mistake.rows)} rows" if step.mistake.rows is not None else " was made"
            yield f"- A mistake{hit}: `{step.mistake.sql}`."
        elif step.verb == "lose":
            yield "- The data directory was lost."
        elif step.restore and step.verdict is Verdict.PASSED:
            outage = step.restore.outage_seconds
            yield f"- {step.title.capitalize()}: back after {outage:.1f} s; PostgreSQL: “{step.restore.reached}”."
        elif step.crash and step.crash.crashes:
            kills = len(step.crash.crashes)
            times = "once" if kills == 1 else f"{kills} times"
            yield (
                f"- The primary was killed {times} under load. Without its disk at most {max(step.crash.ages):.1f} s "
                f"of commits were lost, with {step.crash.promised:g} s promised."
            )
        elif step.operation and step.verdict is Verdict.PASSED:
            yield f"- {step.title}: {step.operation.said}."
        elif step.proof and step.verdict is Verdict.PASSED:
            yield f"- {note(step).capitalize()}."


def _backups(steps: tuple[StepRecord, ...]) -> Iterator[str]:
    rows = [
        (b.label, b.type, b.prior or "", size(b.database_size), size(b.repository_size),
         f"{(b.stopped - b.started).seconds}", f"{b.start_lsn} to {b.stop_lsn}")
        for b in _taken(steps)
    ]  # fmt: skip
    if rows:
        yield "\n### Backups\n"
        yield grid(("label", "type", "on", "database", "in the repository", "seconds", "LSN"), rows)


def _taken(steps: tuple[StepRecord, ...]) -> Iterator[BackupFacts]:
    for step in steps:
        if step.backup:
            yield step.backup
        if step.schedule:
            yield from step.schedule.taken


def _restores(steps: tuple[StepRecord, ...]) -> Iterator[str]:
    rows = [
        _restore(step.number, facts) for step in steps for facts in ((step.restore,) if step.restore else step.restores)
    ]
    if rows:
        yield "\n### Restores\n"
        headers = (
            "step",
            "by",
            "target",
            "from backup",
            "timeline",
            "stop s",
            "restore s",
            "replay s",
            "ready s",
            "reached",
        )
        yield grid(headers, rows)


def _restore(number_of_step: int, facts: RestoreFacts) -> tuple[object, ...]:
    times = (facts.stop_seconds, facts.restore_seconds, facts.replay_seconds, facts.ready_seconds)
    return (
        number_of_step,
        facts.by,
        f"`{facts.target}`" if facts.target else "",
        facts.backup_set,
        f"{facts.target_timeline or 'latest'} → {facts.timeline}",
        *(f"{seconds:.2f}" for seconds in times),
        cell(facts.reached),
    )
