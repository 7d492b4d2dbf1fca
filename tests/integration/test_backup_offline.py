"""A backup that somebody took of a stopped server: pgBackRest lists it, and no WAL belongs to it."""

from __future__ import annotations

import re

import pytest

from pytest_iopbackup.cluster.pgbackrest import info
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.proof.verdict import verdict
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.stack.base import Service
from pytest_iopbackup.stack.local import LocalStack

pytestmark = [pytest.mark.integration, pytest.mark.iop_dataset(users=20)]


def test_nothing_is_recovered_from_it_and_all_else_goes_on(iop_stack: Drill) -> None:
    stack = iop_stack.stack
    assert isinstance(stack, LocalStack)
    iop_stack.write(20)
    iop_stack.mark("point")
    before = info(stack, iop_stack.limits).backups
    stack.stop(Service.DATABASE)
    offline = ["pgbackrest", "--no-online", "--type=full", "backup"]
    stack.host(Service.BACKUP).run(offline, timeout=iop_stack.limits.backup)
    stack.start_database()

    listed = stack.host(Service.BACKUP).run(["pgbackrest", "info"], timeout=iop_stack.limits.command).stdout
    assert listed.count("full backup: ") == 2
    assert info(stack, iop_stack.limits).backups == before
    _, proof = iop_stack.rehearse("point")
    assert verdict(proof) == (Verdict.PASSED, None)

    planned = stack.helper("plan", stack.token, timeout=60)
    assert planned.exit_code == 0, planned.describe()
    assert before[-1].label in planned.stderr
    (label,) = set(re.findall(r"full backup: (\S+)", listed)) - {backup.label for backup in before}
    refused = stack.helper("plan", stack.token, "set", label, timeout=60)
    assert refused.exit_code == 4
    assert "Traceback" not in refused.stderr
    assert label in refused.stderr
    iop_stack.check()
