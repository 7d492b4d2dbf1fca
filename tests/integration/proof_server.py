"""A PostgreSQL of its own for tests of the proof, and what they say of a comparison."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clusters import Server, new_server
from pytest_iopbackup.proof.compare import Comparison
from pytest_iopbackup.proof.verdict import describe, verdict
from pytest_iopbackup.proven import ProofFacts, Verdict


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One for all tests of a module."""
    with new_server() as made:
        yield made


def facts(found: Comparison) -> ProofFacts:
    return ProofFacts(
        mark="m",
        algorithm="",
        tables=found.tables,
        sequences=found.sequences,
        objects=found.objects,
        findings=found.findings,
        ledger=None,
    )


def words(found: Comparison) -> str:
    outcome, reason = verdict(facts(found))
    assert outcome is Verdict.FAILED, describe(facts(found))
    assert reason
    return describe(facts(found))
