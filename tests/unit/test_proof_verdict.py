from __future__ import annotations

import pytest

from pytest_iopbackup.proof.verdict import SCREEN, WIDTH, describe, verdict
from pytest_iopbackup.proven import PORTABLE, Differing, Finding, LedgerJudgement, ProofFacts, TableComparison, Verdict


def table(name: str = "s.t", rows: int = 3, more_than: int | None = None, **ways: Differing) -> TableComparison:
    """Return a table that differs in the given ways, or not at all."""
    return TableComparison(
        table=name,
        expected_rows=rows,
        actual_rows=rows,
        expected_digest="one",
        actual_digest="one" if not ways and more_than is None else "other",
        more_than=more_than,
        tier=PORTABLE,
        **ways,
    )


def some(total: int, *examples: str) -> Differing:
    return Differing(total=total, examples=examples)


def facts(
    *tables: TableComparison, findings: tuple[Finding, ...] = (), ledger: LedgerJudgement | None = None
) -> ProofFacts:
    return ProofFacts(mark="m", algorithm="a", tables=tables, sequences=0, objects=0, findings=findings, ledger=ledger)


FINDING = Finding(kind="constraint", name="s.t.k", expected="UNIQUE (id)", actual="missing")
OTHER = Finding(kind="constraint", name="s.t.k", expected="one", actual="another")
LEDGER = LedgerJudgement(acknowledged=5, rows=9)
LOST = LedgerJudgement(acknowledged=5, rows=9, lost=some(1, "r1"), unexpected=some(2, "r2", "r3"))
EMPTY = LedgerJudgement(acknowledged=0, rows=0)
MISSING = table(missing=some(4, "id=1", "id=2", "id=3", "id=4"))

VERDICTS = {
    "equal": (facts(table()), Verdict.PASSED, None),
    "equal, with a ledger": (facts(table(), ledger=LEDGER), Verdict.PASSED, None),
    "an empty table beside": (facts(table(), table(rows=0)), Verdict.PASSED, None),
    "no table": (facts(), Verdict.UNKNOWN, "nothing was compared: no table with a row was expected"),
    "no row": (facts(table(rows=0)), Verdict.UNKNOWN, "nothing was compared: no table with a row was expected"),
    "no row, with a ledger": (
        facts(ledger=LEDGER),
        Verdict.UNKNOWN,
        "nothing was compared: no table with a row was expected",
    ),
    "empty ledger": (
        facts(table(), ledger=EMPTY),
        Verdict.UNKNOWN,
        "the ledger holds no transaction, though there was a workload",
    ),
    "missing": (facts(MISSING), Verdict.FAILED, "s.t: 4 rows missing (id=1, id=2, id=3, …)"),
    "changed": (facts(table(changed=some(1, "id=1"))), Verdict.FAILED, "s.t: 1 row changed (id=1)"),
    "unexpected": (facts(table(unexpected=some(1, "id=1"))), Verdict.FAILED, "s.t: 1 row unexpected (id=1)"),
    "digest alone": (
        facts(table(missing=some(0))),
        Verdict.FAILED,
        "s.t: 3 rows expected, 3 found, digests differ",
    ),
    "too many to be named": (
        facts(table(more_than=1023)),
        Verdict.FAILED,
        "s.t: 3 rows expected, 3 found, more than 1023 differ",
    ),
    "finding": (
        facts(table(), findings=(FINDING,)),
        Verdict.FAILED,
        "constraint s.t.k: expected UNIQUE (id), found missing",
    ),
    "finding where nothing was compared": (
        facts(findings=(FINDING,), ledger=EMPTY),
        Verdict.FAILED,
        "constraint s.t.k: expected UNIQUE (id), found missing",
    ),
    "lost before all else": (
        facts(table(changed=some(1, "id=1")), MISSING, findings=(FINDING,), ledger=LOST),
        Verdict.FAILED,
        "1 acknowledged transaction lost (r1); and 4 more differences",
    ),
    "missing before changed, of whatever table": (
        facts(table("s.a", changed=some(1, "id=1")), table("s.b", missing=some(1, "id=2"))),
        Verdict.FAILED,
        "s.b: 1 row missing (id=2); and 1 more difference",
    ),
    "unexpected transaction": (
        facts(table(), ledger=LedgerJudgement(acknowledged=1, rows=1, unexpected=some(1, "r"))),
        Verdict.FAILED,
        "1 transaction unexpected (r)",
    ),
}


@pytest.mark.parametrize(("proof", "outcome", "reason"), VERDICTS.values(), ids=list(VERDICTS))
def test_verdict(proof: ProofFacts, outcome: Verdict, reason: str | None) -> None:
    assert verdict(proof) == (outcome, reason)


def test_counts_alone_prove_nothing() -> None:
    assert table().equal
    assert verdict(facts(table(changed=some(1, "id=1"))))[0] is Verdict.FAILED


def test_reason_is_one_line_that_keeps_its_end() -> None:
    proof = facts(table(missing=some(3, "x" * 120, "y" * 120)), findings=(FINDING,))
    reason = verdict(proof)[1]
    assert reason is not None
    assert len(reason) == WIDTH
    assert reason.endswith("…; and 1 more difference")


def test_describe_names_rows_under_their_table() -> None:
    proof = facts(MISSING, findings=(FINDING,), ledger=LOST)
    assert describe(proof).splitlines() == [
        "1 tables: 3 rows expected, 3 found; ledger: 5 transactions must be there, 9 rows looked up",
        "1 acknowledged transaction lost",
        "    r1",
        "s.t: 4 rows missing",
        "    id=1",
        "    id=2",
        "    id=3",
        "    id=4",
        "2 transactions unexpected",
        "    r2",
        "    r3",
        "constraint s.t.k: expected UNIQUE (id), found missing",
    ]


def test_describe_says_so_where_nothing_differs() -> None:
    assert describe(facts(table())).splitlines()[-1] == "no difference"


@pytest.mark.parametrize("tables", [1, 2, 5, 11, 12, 13, 23, 24, 25, 80])
@pytest.mark.parametrize("findings", [0, 1, 30])
@pytest.mark.parametrize("examples", [0, 1, 10])
def test_describe_is_at_most_a_screenful(tables: int, findings: int, examples: int) -> None:
    rows = some(max(examples, 1), *(f"id={number}" for number in range(examples)))
    proof = facts(
        *(table(f"s.t{number}", missing=rows) for number in range(tables)), findings=(OTHER,) * findings, ledger=LOST
    )
    text = describe(proof)
    assert len(text.splitlines()) <= SCREEN
    named = sum(
        text.count(what) for what in (" missing\n", "constraint", "transaction lost", "transactions unexpected")
    )
    left = tables + findings + 2 - named
    assert text.endswith(f"… and {left} more differences") if left else "more differences" not in text
