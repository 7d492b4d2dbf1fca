"""Where each sequence stands, and where it may stand after recovery.

``nextval`` writes WAL ahead: a record says the state after ``log_cnt`` more values (up to SEQ_LOG_VALS = 32 beyond the
values taken, PostgreSQL's sequence.c), and the values up to there are then taken without WAL. ``last_value`` counts
values that sessions hold back by CACHE as taken. So at every moment ``last_value + log_cnt * increment`` is what the
last record said, and recovery gives either the state itself (``setval``, or a page no record was replayed over) or
that: never less than ``last_value``, never more. The bound is cut at MAXVALUE or MINVALUE by ``log_cnt`` itself, and
holds for CYCLE, too: values are never logged across the wrap.

Recovery to a time ends before the first later commit, not at the mark: what open transactions were given until then is
given out there, too, whatever becomes of them (see :func:`widened`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from pytest_iopbackup.proof.session import Cursor, says_damaged, value, words
from pytest_iopbackup.proven import Finding

OWNED = """
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), s.seqincrement, d.refobjid::pg_catalog.regclass::text,
       pg_catalog.quote_ident(a.attname)
FROM pg_catalog.pg_sequence AS s
JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid AND c.relpersistence = 'p'
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_depend AS d
    ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
LEFT JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND NOT s.seqcycle
   AND a.atttypid IN ('int2'::pg_catalog.regtype, 'int4'::pg_catalog.regtype, 'int8'::pg_catalog.regtype)
ORDER BY 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceState:
    """One sequence that recovery keeps (not an unlogged one)."""

    name: str
    last_value: int
    is_called: bool
    """Whether ``last_value`` was given out; if not, it comes next."""
    log_cnt: int
    """How many more values the last WAL record covers."""
    increment: int

    @property
    def logged(self) -> int:
        """What recovery may bring ``last_value`` to."""
        return self.last_value + self.log_cnt * self.increment

    def allows(self, restored: SequenceState) -> bool:
        """Whether recovery to the moment of this state may give ``restored``."""
        low, high = sorted((self.last_value, self.logged))
        first_use = restored.is_called and self.log_cnt > 0  # after a state that is not called nothing is logged
        return low <= restored.last_value <= high and (restored.is_called == self.is_called or first_use)

    def is_behind(self, reached: int) -> bool:
        """Whether a column that has ``reached`` this value has got ahead of the sequence."""
        ahead = reached - self.last_value if self.increment > 0 else self.last_value - reached
        return ahead > 0 or (ahead == 0 and not self.is_called)

    def describe(self) -> str:
        """Return the state as a person reads it."""
        return f"{self.last_value}" if self.is_called else f"{self.last_value}, not yet given out"


def read_states(cursor: Cursor) -> tuple[SequenceState, ...]:
    """Read all sequences in one statement. They follow no snapshot: at a mark its SHARE locks have to be held.

    Under these locks no INSERT can take a value, so the states are those at the mark. Free-running ``nextval`` calls
    can; read before the restore point is made, the states are then a lower bound all the same.
    """
    found = cursor.execute(OWNED).fetchall()
    if not found:
        return ()
    query = sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT {}, last_value, is_called, log_cnt, {} FROM {}").format(
            sql.Literal(name), sql.Literal(increment), sql.SQL(name)
        )
        for name, increment, _table, _column in found
    )
    return tuple(
        SequenceState(name=name, last_value=last, is_called=called, log_cnt=log_cnt, increment=int(increment))
        for name, last, called, log_cnt, increment in cursor.execute(query)
    )


def widened(states: Iterable[SequenceState], later: Iterable[SequenceState]) -> tuple[SequenceState, ...]:
    """Return the states with a bound that reaches to where they were logged ``later``: recovery may stop in between.

    A sequence that was set back or wrapped around meanwhile keeps its bound.
    """
    reached = {state.name: state.logged for state in later}
    return tuple(
        replace(
            state,
            log_cnt=max(state.log_cnt, (reached.get(state.name, state.logged) - state.last_value) // state.increment),
        )
        for state in states
    )


def behind_columns(cursor: Cursor, states: Iterable[SequenceState]) -> Mapping[str, str]:
    """Return, of the sequences that own an integer column, those whose next value the column has already passed.

    The next INSERT or one soon after would fail on a duplicate key. Maps the sequence to what was found.
    """
    by_name = {state.name: state for state in states}
    behind = {}
    for name, increment, table, column in cursor.execute(OWNED).fetchall():
        state = by_name.get(name)
        if column is None or state is None:
            continue
        try:
            with cursor.connection.transaction():
                reached = value(cursor, f"SELECT pg_catalog.{'max' if increment > 0 else 'min'}({column}) FROM {table}")
        except psycopg.Error as error:
            if not says_damaged(error):
                raise
            behind[name] = f"{table}.{column} is unreadable: {words(error)}"
            continue
        if reached is not None and state.is_behind(reached):
            behind[name] = f"{state.describe()}, but {table}.{column} has {reached}"
    return behind


def sequence_findings(expected: Iterable[SequenceState], actual: Iterable[SequenceState]) -> tuple[Finding, ...]:
    """Name every sequence that recovery cannot have left where it is. Missing ones are the catalog's to name."""
    found = {state.name: state for state in actual}
    findings = []
    for state in expected:
        restored = found.get(state.name)
        if restored is None or state.allows(restored):
            continue
        until = f" to {state.logged}" if state.log_cnt else ""
        findings.append(
            Finding(kind="sequence", name=state.name, expected=state.describe() + until, actual=restored.describe())
        )
    return tuple(findings)
