"""What restored databases were found to hold: sections of the report."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_iopbackup.points import PointFacts
from pytest_iopbackup.proven import Differing, ProofFacts, TableComparison
from pytest_iopbackup.record import StepRecord
from pytest_iopbackup.reports.grid import SIGN, cell, grid
from pytest_iopbackup.reports.text import number, physical


def proofs_section(steps: tuple[StepRecord, ...]) -> Iterator[str]:
    """One matrix per mark: its tables, and whether each restore brought back exactly their rows."""
    proofs: dict[str, list[tuple[str, ProofFacts]]] = {}
    last = "as it is"
    for step in steps:
        if step.restore:
            last = f"step {step.number}, {'latest' if step.restore.by == 'default' else step.restore.by}"
        if step.proof:
            proofs.setdefault(step.proof.mark, []).append((last, step.proof))
    for mark, restored in proofs.items():
        yield f"\n### Row sets of mark `{mark}`\n"
        yield _matrix(restored)
        yield f"\nDigests: {restored[0][1].algorithm}, 128 bits; a row set is equal when count and digest are."
        for name, proof in restored:
            yield from _beside_rows(name, proof)


def points_section(steps: tuple[StepRecord, ...]) -> Iterator[str]:
    """One line per recovery point that was tried."""
    for step in steps:
        if step.points is None:
            continue
        yield f"\n### Recovery points of step {step.number}\n"
        seed = f"; drawn with seed {step.points.seed}" if step.points.seed is not None else ""
        tried = f"{number(len(step.points.points))} points, {step.points.restores} restore"
        tried += "s" if step.points.restores != 1 else ""
        yield f"{tried}; {step.points.window}{seed}.\n"
        if sound := step.points.sound:
            largest = max(sound, key=lambda facts: facts.pages)
            found = "1 restored cluster is" if len(sound) == 1 else f"{number(len(sound))} restored clusters are"
            yield f"{found} sound; of the largest: {physical(largest)}.\n"
        if rested := [point.still for point in step.points.points if point.still]:
            yield (
                f"At {number(len(rested))} of them up to {number(max(rested))} tables were not read again: "
                "no transaction in the WAL changes them.\n"
            )
        headers = ("point", "by", "target", "from backup", "timeline", "expected", "verdict", "reached", "seconds")
        yield grid(headers, [_point(point) for point in step.points.points])


def _point(point: PointFacts) -> tuple[object, ...]:
    expected = f"{number(point.expected or 0)} transactions" + (f", the rows of `{point.mark}`" if point.mark else "")
    return (
        cell(point.name),
        point.by + (", exclusive" if point.exclusive else ""),
        f"`{cell(point.target)}`" if point.target else "",
        point.backup_set or "",
        point.timeline or "newest",
        f"refused: {cell(point.refusal)}" if point.refusal else expected,
        SIGN[point.verdict],
        cell(point.reason or point.reached or ""),
        f"{point.seconds:.2f}",
    )


def _matrix(restored: list[tuple[str, ProofFacts]]) -> str:
    actual = [{table.table: table for table in proof.tables} for _, proof in restored]
    expected = {table.table: table for _, proof in restored for table in proof.tables}
    rows = [
        (
            name,
            number(table.expected_rows),
            f"`{table.expected_digest}`",
            *(_same(tables.get(name)) for tables in actual),
        )
        for name, table in expected.items()
    ]
    return grid(("table", "rows", "digest", *(name for name, _ in restored)), rows)


def _same(table: TableComparison | None) -> str:
    if table is None:
        return "not compared"
    if table.equal:
        return "✅ equal"
    ways = {"missing": table.missing, "unexpected": table.unexpected, "changed": table.changed}
    counts = [f"{number(rows.total)} {way}" for way, rows in ways.items() if rows.total]
    return "❌ " + (", ".join(counts) or "differs")


def _beside_rows(name: str, proof: ProofFacts) -> Iterator[str]:
    text = f"\n**{name}:** {proof.sequences} sequences and {proof.objects} objects of the schema compared"
    if ledger := proof.ledger:
        text += (
            f"; ledger: {number(ledger.acknowledged)} transactions and {number(ledger.rows)} rows that they "
            f"changed looked up, {ledger.lost.total} lost, {ledger.unexpected.total} unexpected, "
            f"{ledger.recovered} recovered"
        )
    yield f"{text}.\n"
    if proof.ledger:
        yield from _differing("transactions lost", proof.ledger.lost)
        yield from _differing("transactions unexpected", proof.ledger.unexpected)
    for table in proof.tables:
        yield from _differing(f"{table.table}, missing", table.missing)
        yield from _differing(f"{table.table}, unexpected", table.unexpected)
        yield from _differing(f"{table.table}, changed", table.changed)
        if table.more_than is not None:
            yield f"- {table.table}, differing: more than {number(table.more_than)}"
    for table_name, why in proof.skipped.items():
        yield f"- {table_name}: rows not compared, {why}"
    if facts := proof.physical:
        yield (
            f"- Physically {physical(facts)}. Seconds, side by side: page checksums {facts.page_seconds:.2f}, "
            f"heaps and indexes of {facts.databases} databases {facts.structure_seconds:.2f}, constraints "
            f"{facts.constraint_seconds:.2f}"
        )
        for what, why in facts.omissions.items():
            yield f"- {what}: not checked, {why}"
    for finding in proof.findings:
        yield f"- {finding.kind} {finding.name}: expected {finding.expected}, found {finding.actual}"


def _differing(what: str, rows: Differing) -> Iterator[str]:
    if rows.total:
        yield f"- {what}: {number(rows.total)} ({'; '.join(f'`{example}`' for example in rows.examples)})"
