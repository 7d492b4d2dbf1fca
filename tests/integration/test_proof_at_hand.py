"""A restored copy that differs, while the source beside it still is as it was at the mark: rows with their values."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_iopbackup.cluster import restore
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.proof.verdict import verdict
from pytest_iopbackup.proven import ProofFacts, TableComparison, Verdict
from pytest_iopbackup.stack.base import Restorable, Service

pytestmark = [pytest.mark.integration, pytest.mark.iop_dataset(users=8000)]

USERS, MEMBERSHIP, SETTINGS = "identity.users", "identity.membership", "identity.settings"
SABOTAGE = (
    f"UPDATE {USERS} SET locale = 'x-' || locale WHERE number <= 7000",
    f"DELETE FROM {MEMBERSHIP} WHERE user_id IN (SELECT id FROM {USERS} WHERE number <= 7000)",
    f"ALTER TABLE {SETTINGS} RENAME TO renamed",
)


@pytest.fixture
def copy(iop_stack: Drill) -> Iterator[Restorable]:
    """Restored to a mark, then changed: more rows than a sketch can name."""
    iop_stack.mark("before")
    copy = iop_stack.stack.copy()
    try:
        restore.restore(copy, iop_stack.history.target("before", "name"), iop_stack.limits, resume=())
        assert verdict(iop_stack.prove("before", copy, physical=False)) == (Verdict.PASSED, None)
        with copy.connect() as connection:
            for statement in SABOTAGE:
                connection.execute(statement.encode())
        yield copy
    finally:
        copy.close()


def table(proof: ProofFacts, name: str) -> TableComparison:
    return next(one for one in proof.tables if one.table == name)


def test_all_rows_are_named_with_their_values_until_the_source_goes_on(iop_stack: Drill, copy: Restorable) -> None:
    with iop_stack.connect() as connection:
        lost = connection.execute(
            f"SELECT count(*) FROM {MEMBERSHIP} JOIN {USERS} ON users.id = user_id WHERE number <= 7000".encode()
        ).fetchone()
    assert lost
    assert lost[0] > 1000

    proof = iop_stack.prove("before", copy, physical=False)
    assert verdict(proof)[0] is Verdict.FAILED
    users, membership = table(proof, USERS), table(proof, MEMBERSHIP)
    assert (users.changed.total, users.missing.total, users.unexpected.total, users.more_than) == (7000, 0, 0, None)
    assert all(" (locale: " in name and " → x-" in name for name in users.changed.examples)
    assert (membership.missing.total, membership.more_than) == (lost[0], None)
    assert table(proof, SETTINGS).missing.total > 0  # it is gone there: as the sketch has it

    with iop_stack.connect() as connection:
        connection.execute(f"UPDATE {USERS} SET version = version + 1 WHERE number = 8000".encode())
    later = iop_stack.prove("before", copy, physical=False)
    assert table(later, USERS).more_than is not None  # it is not as at the mark: the sketch again
    assert table(later, MEMBERSHIP).missing.total == lost[0]

    iop_stack.stack.stop(Service.DATABASE)
    gone = iop_stack.prove("before", copy, physical=False)
    assert verdict(gone)[0] is Verdict.FAILED
    assert table(gone, USERS).more_than is not None
