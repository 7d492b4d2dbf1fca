"""One target, tried on a copy beside the running stack: restored with exactly the right rows, or rightly refused."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pytest_iopbackup.blame import blame, words
from pytest_iopbackup.cluster import restore
from pytest_iopbackup.cluster.targets import By, Target
from pytest_iopbackup.dataset.prepared import roll_back_left_over
from pytest_iopbackup.drill import Drill
from pytest_iopbackup.errors import IopError, ProofError, RecoveryError, TargetError
from pytest_iopbackup.everywhere.window import Window
from pytest_iopbackup.points import PointFacts
from pytest_iopbackup.proof.cut import InWal
from pytest_iopbackup.proof.stop import misplaced
from pytest_iopbackup.proven import Verdict
from pytest_iopbackup.stack.base import Restorable, Service

NEVER_REACHED = "recovery ended before configured recovery target was reached"
_HARM = """
cd "$1"
find base -type f -size +16k | sort | while read -r file; do
    printf harmed | dd of="$file" bs=1 seek=9000 conv=notrunc 2>/dev/null
done
rm "$(find base -type f -size +8k | sort | head -n 1)"
echo foreign >base/foreign
"""
"""Changes every larger file of a data directory, keeps their sizes, removes one and adds one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A target to try. Without ``refusal`` it must be reached."""

    name: str
    window: Window
    target: Target
    refusal: str | None = None
    """What has to be said instead (a regular expression)."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """What the copy's programs find in their environment."""
    options: tuple[str, ...] = ()
    """pgBackRest's, beside those that follow from the target."""
    client: str = ""
    """libpq's options for the connection that proves."""
    first: Target | None = None
    """Restored to the same place before; its files are then changed."""


def attempt(drill: Drill, wanted: Attempt) -> PointFacts:
    """Try a target on a copy. Whatever goes wrong is in the facts."""
    began = time.monotonic()
    copy: Restorable | None = None
    facts = untried(wanted)
    try:
        copy = drill.stack.copy(wanted.variables)
        facts = _try(drill, wanted, copy, facts)
    except Exception as error:  # whatever it is, it is a verdict with a reason
        facts = replace(facts, verdict=blame(error), reason=words(error))
    finally:
        if copy is not None:
            copy.close()
    return replace(facts, seconds=time.monotonic() - began)


def untried(wanted: Attempt) -> PointFacts:
    """Return what is known of a point before it was tried."""
    return PointFacts(
        name=wanted.name,
        by=wanted.target.by.value,
        target=wanted.target.value,
        exclusive=wanted.target.exclusive,
        backup_set=wanted.target.backup_set,
        timeline=wanted.target.timeline,
        refusal=wanted.refusal,
        verdict=Verdict.UNKNOWN,
        seconds=0,
    )


def _try(drill: Drill, wanted: Attempt, copy: Restorable, facts: PointFacts) -> PointFacts:
    if wanted.first is not None:
        restore.restore(copy, wanted.first, drill.limits, resume=())
        _harm(copy, drill.limits.command)
    try:
        chosen = restore.plan(copy, wanted.target, drill.limits)
        nameless = wanted.target.by is By.NAME and wanted.target.at_lsn is None  # no mark on this line has the name
        cut = None if nameless else wanted.window.cut(wanted.target, chosen)
        facts = replace(facts, backup_set=chosen.label)
        if (cut is None) != (wanted.refusal is not None):
            where = "never reached" if cut is None else "reached"
            raise ProofError(f"by the order of WAL, {wanted.target.describe()} is {where}, against what was expected")
        done = restore.restore(copy, wanted.target, drill.limits, resume=(), options=wanted.options)
    except (TargetError, RecoveryError) as refused:
        return _refused(wanted, copy, facts, refused, drill.limits.command)
    facts = replace(facts, reached=done.reached)
    if cut is None:
        reason = f"restored, though the target cannot be reached: {done.reached}"
        return replace(facts, verdict=Verdict.FAILED, reason=reason)
    return prove(wanted, cut, copy, facts, seconds=drill.limits.examine)


def prove(
    wanted: Attempt, cut: InWal, copy: Restorable, facts: PointFacts, *, seconds: float | None = None
) -> PointFacts:
    """Judge a restored copy: where it stopped, and what it holds. ``facts.reached`` has PostgreSQL's words.

    ``seconds`` is :meth:`Window.prove`'s.
    """
    with copy.connect(options=wanted.client) as connection:
        roll_back_left_over(connection)  # what is prepared at the target may keep others from reading
        proven = wanted.window.prove(cut, connection, seconds=seconds)
    return proven.judged(facts, misplaced(wanted.window.order, wanted.target, cut, facts.reached or ""))


def _refused(wanted: Attempt, copy: Restorable, facts: PointFacts, error: IopError, limit: float) -> PointFacts:
    facts = replace(facts, reached=" ".join(str(error).split()))
    if wanted.refusal is None:
        return replace(facts, verdict=Verdict.FAILED, reason=words(error))
    if not re.search(wanted.refusal, str(error)):
        reason = f"refused with other words than {wanted.refusal!r}: {error}"
        return replace(facts, verdict=Verdict.FAILED, reason=reason)
    if isinstance(error, TargetError):
        left = copy.host(Service.DATABASE).run(["ls", "-A", str(copy.places.data)], timeout=limit).stdout.split()
        if left:
            reason = f"refused too late: the data directory holds {', '.join(left[:3])}"
            return replace(facts, verdict=Verdict.FAILED, reason=reason)
    return replace(facts, verdict=Verdict.PASSED)


def _harm(copy: Restorable, limit: float) -> None:
    copy.stop(Service.DATABASE)
    copy.host(Service.DATABASE).run(["sh", "-ec", _HARM, "sh", str(copy.places.data)], timeout=limit)
