"""A fault's own trouble, in breaking something or in proving it, says nothing of the system under test."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import pytest

from pytest_iopbackup.blame import blame
from pytest_iopbackup.errors import (
    CommandError,
    DeadlineError,
    HealError,
    IopError,
    ProofError,
    RecoveryError,
    TargetError,
)
from pytest_iopbackup.faults.base import Expected, Fault, injected
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.stack.base import CommandResult, Stack
from pytest_iopbackup.stack.binaries import Binaries
from pytest_iopbackup.stack.local import LocalStack
from pytest_iopbackup.stack.local_services import LocalSettings

SITE = Site(cast("Stack", None), Limits(proof=3))
FAILED = CommandError(CommandResult(("chown", "nobody"), 1, "", "chown: no such user", 0.1), hint="make one")


class Mine(Fault):
    name = "mine"
    title = "Something is broken"
    expected = Expected(signal="space", reason="full")

    def __init__(self, *, evidence: object = "it is broken", inject: Exception | None = None) -> None:
        self.evidence, self.trouble = evidence, inject
        self.healed = 0

    def inject(self, _: Site) -> None:
        if self.trouble:
            raise self.trouble

    def prove(self, _: Site) -> str:
        if isinstance(self.evidence, Exception):
            raise self.evidence
        return cast("str", self.evidence)

    def heal(self, _: Site) -> None:
        self.healed += 1


def trouble(fault: Mine) -> Exception:
    with pytest.raises(IopError) as caught, injected(fault, SITE):
        pytest.fail("it counts as broken")
    assert fault.healed == 1
    return caught.value


@pytest.mark.parametrize("error", [FAILED, IopError("bad"), RecoveryError("bad"), TargetError("bad")])
@pytest.mark.parametrize("where", ["inject", "prove"])
def test_what_fails_within_a_fault_is_not_blamed_on_the_system(where: str, error: IopError) -> None:
    told = trouble(Mine(inject=error) if where == "inject" else Mine(evidence=error))
    assert blame(told) is Verdict.UNKNOWN
    assert str(told) == f"mine could not be done: {error}"


def test_a_look_that_hangs_is_told_without_an_empty_reason() -> None:
    told = trouble(Mine(evidence=DeadlineError("ls did not end within 60 s", hint="see there")))
    assert str(told) == "ls did not end within 60 s\nHINT: see there"


def test_what_fails_while_it_is_broken_is_told_as_it_is() -> None:
    def body() -> None:
        with injected(Mine(), SITE):
            raise FAILED

    with pytest.raises(CommandError):
        body()


@pytest.mark.parametrize("evidence", [None, "", "  \n", True, False])
def test_a_proof_without_evidence_is_told_at_once(evidence: object) -> None:
    asked = time.monotonic()
    told = trouble(Mine(evidence=evidence))
    assert time.monotonic() - asked < 1
    assert blame(told) is Verdict.UNKNOWN
    assert f"the prove() of the fault mine gave no evidence, but {evidence!r}" in str(told)
    assert "HINT: " in str(told)


def test_evidence_may_take_its_time() -> None:
    answers = iter(["not yet", "not yet", "there"])

    class Slow(Mine):
        def prove(self, _: Site) -> str:
            seen = next(answers)
            if seen == "not yet":
                raise ProofError(seen)
            return seen

    with injected(Slow(), SITE) as evidence:
        assert evidence == "there"


def test_a_heal_that_fails_as_well_is_told_with_the_first_trouble() -> None:
    class Worse(Mine):
        def heal(self, _: Site) -> None:
            raise OSError("no way")

    words = r"(?s)chown: no such user.*; and mine could not be undone: no way"
    with pytest.raises(HealError, match=words), injected(Worse(inject=FAILED), SITE):
        pass


def test_a_file_that_pgbackrest_has_not_finished_is_not_there(base: Path) -> None:
    stack = LocalStack(base / "s-1", LocalSettings(binaries=Binaries(base, base, base, "", ""), limits=Limits()))
    stack.make_directories()
    segment = stack.places.repository / "000000010000000000000003-0a.zst"
    segment.with_name(f"{segment.name}.pgbackrest.tmp").touch()
    site = Site(stack, Limits())
    assert site.files(stack.places.repository, "0*-*") == []
    segment.touch()
    assert site.files(stack.places.repository, "0*-*") == [segment]
