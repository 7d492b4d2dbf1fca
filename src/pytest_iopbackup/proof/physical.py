"""Whether what was restored is sound: page checksums, heaps and indexes, constraints; of all databases, side by side.

A row-set comparison reads rows, and those from the heap: it sees no index, no free space, no other database, and no
constraint that rows have got around.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import psycopg

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.proof.constraints import verify_constraints
from pytest_iopbackup.proof.examined import Examined, together
from pytest_iopbackup.proof.pages import verify_pages
from pytest_iopbackup.proof.session import Connection, Cursor, reading, says_damaged, scratch, words
from pytest_iopbackup.proof.structure import verify_structure
from pytest_iopbackup.proven import Finding, PhysicalFacts

DATABASES = """
SELECT datname, datallowconn AND datconnlimit <> -2 FROM pg_catalog.pg_database
WHERE datname <> pg_catalog.current_database() ORDER BY pg_catalog.pg_database_size(oid) DESC
"""
"""All others, the biggest first; a limit of -2 is of one whose DROP DATABASE was interrupted."""

Examiner = Callable[[Cursor], Examined]
_SUBJECTS: Mapping[Examiner, str] = {
    verify_pages: "page checksums",
    verify_structure: "heaps and indexes",
    verify_constraints: "constraints",
}
Connect = Callable[[str | None], Connection]


@dataclass(frozen=True, slots=True)
class _Task:
    database: str | None
    """None is the one that the proof is about."""
    examiners: tuple[Examiner, ...]
    """One after the other, on one connection: a second one costs as much as a small database's constraints."""


@dataclass(slots=True)
class _Done:
    part: Examined
    seconds: dict[Examiner, float] = field(default_factory=dict)
    trouble: ProofError | None = None
    """Why something could not be looked at."""


def examine(connect: Connect, seconds: float) -> tuple[PhysicalFacts, tuple[Finding, ...]]:
    """Look the whole cluster over, with as many connections at a time as there are cores.

    ``connect`` is of :func:`session.connector`. No statement may take more than ``seconds``. All that is written
    meanwhile is rolled back. Damage is a finding, what cannot be looked at an omission by name; raises ProofError
    where it could not be found out and nothing was found that might be the reason.
    """
    with _opened(connect, None) as connection, reading(connection) as cursor:
        others = cursor.execute(DATABASES).fetchall()
    names = [None, *(name for name, accepts in others if accepts)]
    # The longest first: amcheck takes most of the time, and the proof's own database is the one with the data.
    tasks = [_Task(None, (examiner,)) for examiner in (verify_structure, verify_pages, verify_constraints)]
    tasks += [_Task(name, (verify_structure, verify_constraints)) for name in names[1:]]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        done = list(pool.map(lambda task: _run(task, connect, seconds), tasks))
    closed = {
        f"heaps and indexes of database {name}": "it accepts no connections" for name, accepts in others if not accepts
    }
    found = together([*(one.part for one in done), Examined(omissions=closed)])
    troubles = [one.trouble for one in done if one.trouble is not None]
    if troubles and not found.findings:
        raise troubles[0]

    def spent(examiner: Examiner) -> float:
        return sum(one.seconds.get(examiner, 0) for one in done)

    facts = PhysicalFacts(
        databases=len(names),
        files=found.files,
        pages=found.pages,
        tables=found.tables,
        indexes=found.indexes,
        constraints=found.constraints,
        page_seconds=spent(verify_pages),
        structure_seconds=spent(verify_structure),
        constraint_seconds=spent(verify_constraints),
        omissions=found.omissions,
    )
    return facts, found.findings


def _run(task: _Task, connect: Connect, seconds: float) -> _Done:
    try:
        connection = _opened(connect, task.database)
    except ProofError as error:
        if task.database is None:
            return _Done(Examined(), trouble=error)
        # The server is up, for the proof's own database was reached, and this one is there to be connected to.
        refusal = Finding(kind="database", name=task.database, expected="accepts sessions", actual=error.message)
        return _Done(Examined(findings=(refusal,)))
    done = _Done(Examined())
    with connection:
        for examiner in task.examiners:
            started = time.monotonic()
            part = _examined(examiner, connection, seconds, done)
            done.seconds[examiner] = time.monotonic() - started
            done.part = together([done.part, part if task.database is None else _elsewhere(part, task.database)])
    return done


def _examined(examiner: Examiner, connection: Connection, seconds: float, done: _Done) -> Examined:
    """Look one thing over; what kept us from it is a finding where PostgreSQL calls it damage, or else trouble."""
    subject = _SUBJECTS[examiner]
    try:
        with scratch(connection, seconds) as cursor:
            return examiner(cursor)
    except ProofError as error:
        findings: tuple[Finding, ...] = ()
        if isinstance(error.__cause__, psycopg.Error) and says_damaged(error.__cause__):
            damage = words(error.__cause__)
            findings = (Finding(kind="catalogs for", name=subject, expected="readable", actual=damage),)
        else:
            done.trouble = error
        return Examined(findings=findings, omissions={subject: error.message})


def _opened(connect: Connect, database: str | None) -> Connection:
    try:
        return connect(database)
    except psycopg.OperationalError as error:
        raise ProofError(
            " ".join(str(error).split()), hint="PostgreSQL's log has more; it needs a few connections beside others"
        ) from error


def _elsewhere(found: Examined, database: str) -> Examined:
    """Say which database it is about."""
    where = f" in database {database}"
    return replace(
        found,
        findings=tuple(replace(finding, name=finding.name + where) for finding in found.findings),
        omissions={name + where: why for name, why in found.omissions.items()},
    )
