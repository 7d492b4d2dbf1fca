"""Recovery targets that a restore leaves behind by design are no fault; those that it would meet again are."""

from __future__ import annotations

import pytest

from pytest_iopbackup.drill import Drill
from pytest_iopbackup.faults.base import PACE
from pytest_iopbackup.stack.base import Service


@pytest.mark.iop_variables(**PACE)
@pytest.mark.iop_dataset(users=200)
def test_a_stack_that_was_restored_to_a_moment_is_green(iop_stack: Drill) -> None:
    own = iop_stack.stack.places.data / "postgresql.auto.conf"
    for way in ("time", "name"):
        iop_stack.mark(way)
        iop_stack.write(10)
        iop_stack.restore(way, by=way)
        assert f"\nrecovery_target_{way} = ".encode() in iop_stack.stack.host(Service.DATABASE).read(own)
        iop_stack.check()
    with iop_stack.connect() as connection:
        (left,) = connection.execute("SELECT current_setting('recovery_target_name')").fetchone() or ("",)
    assert left
    iop_stack.backup("full")
    with iop_stack.connect() as connection:  # whatever is in that file, the next restore takes it out
        connection.autocommit = True
        connection.execute("ALTER SYSTEM SET recovery_target_time = '2001-01-01 00:00:00+00'")
    iop_stack.mark("end", settled=True)
    iop_stack.restore("end", by="default")
    iop_stack.expect("end")
    iop_stack.check()
