"""From what was compared to a verdict, a reason on one line, and a screenful that names the differences."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_iopbackup.proven import Differing, ProofFacts, Verdict

SCREEN = 25
"""Lines of a screenful."""

WIDTH = 200
"""Longest line, in characters."""


@dataclass(frozen=True, slots=True)
class _Difference:
    headline: str
    examples: tuple[str, ...] = ()


def verdict(proof: ProofFacts) -> tuple[Verdict, str | None]:
    """Judge a comparison; its ``ledger`` is None where no workload was expected.

    Failed on any difference, named with the worst first. Unknown if nothing can have been proven: no table with a row,
    or a ledger that holds nothing, neither what must be there nor what must not.
    """
    differences = _differences(proof)
    if differences:
        worst, more = differences[0], len(differences) - 1
        rest = f"; and {more} more difference{'s' if more > 1 else ''}" if more else ""
        examples = (
            f" ({', '.join(worst.examples[:3])}{', …' if len(worst.examples) > 3 else ''})" if worst.examples else ""
        )
        return Verdict.FAILED, _cut(worst.headline + examples, WIDTH - len(rest)) + rest
    if not any(table.expected_rows for table in proof.tables):
        return Verdict.UNKNOWN, "nothing was compared: no table with a row was expected"
    if proof.ledger is not None and not (proof.ledger.acknowledged or proof.ledger.rows):
        return Verdict.UNKNOWN, "the ledger holds no transaction, though there was a workload"
    return Verdict.PASSED, None


def describe(proof: ProofFacts) -> str:
    """Return what was compared and what differs, the worst first, in at most ``SCREEN`` lines.

    Rows are named under their table, as many of each as the screen has room for.
    """
    lines = [_summary(proof)]
    differences = _differences(proof)
    if not differences:
        return "\n".join([*lines, "no difference"])
    room = SCREEN - len(lines)
    shown = differences
    if len(differences) > room:
        room -= 1  # for the last line
        shown = differences[:room]
    most = next((most for most in range(10, 0, -1) if sum(1 + len(item.examples[:most]) for item in shown) <= room), 0)
    for item in shown:
        lines.append(item.headline)
        lines.extend(f"    {example}" for example in item.examples[:most])
    if len(shown) < len(differences):
        lines.append(f"… and {len(differences) - len(shown)} more differences")
    return "\n".join(_cut(line, WIDTH) for line in lines)


def _summary(proof: ProofFacts) -> str:
    expected = sum(table.expected_rows for table in proof.tables)
    text = f"{len(proof.tables)} tables: {expected} rows expected, {proof.rows} found"
    if (judgement := proof.ledger) is not None:
        text += f"; ledger: {judgement.acknowledged} transactions must be there, {judgement.rows} rows looked up"
        text += f", {judgement.recovered} more recovered" if judgement.recovered else ""
    return text


def _differences(proof: ProofFacts) -> list[_Difference]:
    """List what differs in the order of what hurts: lost before changed before unexpected, and rows before objects."""
    found: list[_Difference] = []
    if proof.ledger is not None:
        found += _counted("", "acknowledged transaction", "lost", proof.ledger.lost)
    different = [table for table in proof.tables if not table.equal]
    for way in ("missing", "changed", "unexpected"):
        for table in different:
            found += _counted(f"{table.table}: ", "row", way, getattr(table, way))
    found += [
        _Difference(
            f"{table.table}: {table.expected_rows} rows expected, {table.actual_rows} found, "
            + ("digests differ" if table.more_than is None else f"more than {table.more_than} differ")
        )
        for table in different
        if not (table.missing.total or table.changed.total or table.unexpected.total)
    ]
    if proof.ledger is not None:
        found += _counted("", "transaction", "unexpected", proof.ledger.unexpected)
    found += [
        _Difference(f"{item.kind} {item.name}: expected {item.expected}, found {item.actual}")
        for item in proof.findings
    ]
    return found


def _counted(where: str, noun: str, way: str, differing: Differing) -> list[_Difference]:
    if not differing.total:
        return []
    plural = "" if differing.total == 1 else "s"
    return [_Difference(f"{where}{differing.total} {noun}{plural} {way}", differing.examples)]


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"
