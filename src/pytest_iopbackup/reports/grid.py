"""Tables in Markdown, and what stands in their cells."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from pytest_iopbackup.proven import Verdict

SIGN = {Verdict.PASSED: "✅ passed", Verdict.FAILED: "❌ failed", Verdict.UNKNOWN: "❔ unknown"}


def grid(headers: tuple[str, ...], rows: Sequence[Sequence[object]]) -> str:
    """Return a table as GitHub shows it."""
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def cell(text: str) -> str:
    """Return a text that does not break its cell."""
    return text.replace("|", "\\|").replace("\n", " ")
