"""The whole proof of a restored database: its rows against a mark, the ledger, and whether it is sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pytest_iopbackup.dataset.ledger import Entry
from pytest_iopbackup.errors import IopError, ProofError
from pytest_iopbackup.proof.capture import Progress
from pytest_iopbackup.proof.compare import compare
from pytest_iopbackup.proof.cut import AtTime
from pytest_iopbackup.proof.judge import judge
from pytest_iopbackup.proof.mark import Mark
from pytest_iopbackup.proof.physical import examine
from pytest_iopbackup.proof.redact import without_rows
from pytest_iopbackup.proof.session import Connection, connector
from pytest_iopbackup.proof.verdict import verdict
from pytest_iopbackup.proven import Finding, PhysicalFacts, ProofFacts, Verdict

Ledger = tuple[Sequence[Entry], Set[str]]
"""What the workload committed or tried, and the requests that were there before it."""


def prove(
    connection: Connection,
    mark: Mark,
    ledger: Ledger | None,
    *,
    seconds: float | None,
    progress: Progress | None = None,
    redact: bool = False,
) -> ProofFacts:
    """Compare the database with a mark and with the ledger, and look the cluster over meanwhile.

    ``seconds`` is for each statement of the latter; with None it is left out. ``redact`` hides keys and values. Raises
    ProofError where either could not be carried out, unless the other has found what is wrong: damage is the likeliest
    reason why rows cannot be read.
    """
    nothing = ProofFacts(mark=mark.facts.name, algorithm=mark.capture.algorithm)
    return looked_over(
        nothing, connection, seconds, lambda: _compared(nothing, connection, mark, ledger, progress, redact=redact)
    )


def looked_over(
    nothing: ProofFacts, connection: Connection, seconds: float | None, compared: Callable[[], ProofFacts]
) -> ProofFacts:
    """Carry out a comparison, and look the cluster over meanwhile; see :func:`prove`.

    ``nothing`` is what is told where the rows cannot be read and the cluster's damage says why.
    """
    with ThreadPoolExecutor(1) as pool:
        looking = None if seconds is None else pool.submit(examine, connector(connection), seconds)
        try:
            proof = compared()
        except ProofError as error:
            if looking is None or looking.exception() or not looking.result()[1]:
                raise
            unreadable = Finding(
                kind="database", name=connection.info.dbname, expected="readable", actual=error.message
            )
            proof = replace(nothing, findings=(unreadable,))
    if looking is None:
        return proof
    try:
        facts, findings = looking.result()
    except ProofError:
        if verdict(proof)[0] is not Verdict.FAILED:
            raise
        return proof
    return replace(proof, physical=facts, findings=(*proof.findings, *findings))


def require_sound(connection: Connection, seconds: float) -> PhysicalFacts:
    """Look a cluster over by itself; see :func:`prove`. Raises IopError with what is wrong with it."""
    facts, findings = examine(connector(connection), seconds)
    if findings:
        raise IopError(verdict(ProofFacts(mark="", algorithm="", findings=findings))[1] or "")
    return facts


def _compared(
    nothing: ProofFacts,
    connection: Connection,
    mark: Mark,
    ledger: Ledger | None,
    progress: Progress | None,
    *,
    redact: bool,
) -> ProofFacts:
    found = compare(mark.capture, connection, progress, redact=redact)
    judgement = None
    if ledger is not None:
        entries, seeded = ledger
        judgement = judge(entries, AtTime(mark.facts.time), connection, seeded=seeded)
    return replace(
        nothing,
        algorithm=found.algorithm,
        tables=found.tables,
        sequences=found.sequences,
        objects=found.objects,
        findings=found.findings,
        ledger=without_rows(judgement) if judgement and redact else judgement,
        skipped=found.skipped,
    )
