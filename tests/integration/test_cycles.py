"""Restore after restore on one stack: every branch of history is proven, and none is mistaken for another."""

from __future__ import annotations

import random

import pytest

from pytest_iopbackup.drill import Drill

pytestmark = [pytest.mark.integration, pytest.mark.iop_dataset(users=200)]

MISTAKES = (
    "DELETE FROM identity.membership",
    "UPDATE identity.users SET version = version + 7, quota = 0",
    "TRUNCATE identity.sessions",
    "DELETE FROM identity.settings WHERE key = (SELECT min(key) FROM identity.settings)",
)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_cycles_of_harm_and_restore_are_exact_without_a_false_alarm(iop_stack: Drill, seed: int) -> None:
    chance = random.Random(seed)
    marks: list[str] = []
    for number in range(5):
        iop_stack.write(chance.randrange(10, 60), clients=chance.randrange(1, 8))
        marks.append(f"mark-{number}")
        iop_stack.mark(marks[-1])
        with iop_stack.connect() as connection:
            connection.execute(chance.choice(MISTAKES).encode())
        if chance.random() < 0.5:
            iop_stack.write(30)
        if chance.random() < 0.3:
            iop_stack.backup(chance.choice(["full", "diff"]))
        target = chance.randrange(len(marks))
        iop_stack.restore(marks[target], chance.choice(["time", "lsn", "xid", "name"]))
        iop_stack.expect(marks[target])
        del marks[target + 1 :]
