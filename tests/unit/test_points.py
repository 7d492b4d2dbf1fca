"""What becomes of many points: one bad one, none at all, and none that compared anything."""

from __future__ import annotations

from pytest_iopbackup.points import PointFacts, PointsFacts
from pytest_iopbackup.proven import Verdict


def point(verdict: Verdict = Verdict.PASSED, *, expected: int | None = 5, reason: str | None = None) -> PointFacts:
    return PointFacts(
        name="xid 7", by="xid", target="7", expected=expected, verdict=verdict, reason=reason, seconds=0.5
    )


def tried(*points: PointFacts) -> PointsFacts:
    return PointsFacts(points=points, restores=1, window="all")


def test_all_exact_is_passed() -> None:
    facts = tried(point(), point(expected=None))
    assert (facts.verdict, facts.reason) == (Verdict.PASSED, None)


def test_the_worst_point_is_named_and_how_many_more_there_are() -> None:
    lost = point(Verdict.FAILED, reason="1 acknowledged transaction lost")
    facts = tried(point(), point(Verdict.UNKNOWN, reason="not tried"), lost, lost)
    assert facts.verdict is Verdict.FAILED
    assert facts.reason == "xid 7: 1 acknowledged transaction lost; and 1 more of 4 points"


def test_no_point_and_no_comparison_are_unknown() -> None:
    assert tried().verdict is Verdict.UNKNOWN
    nothing = tried(point(expected=0), point(expected=None))
    assert nothing.verdict is Verdict.UNKNOWN
    assert nothing.reason == "no point was compared with rows that had to be there, so nothing is proven"
    assert tried().reason == nothing.reason


def test_an_unknown_point_gives_its_own_reason() -> None:
    facts = tried(point(), point(Verdict.UNKNOWN, reason="the ledger is gone"))
    assert (facts.verdict, facts.reason) == (Verdict.UNKNOWN, "xid 7: the ledger is gone")
