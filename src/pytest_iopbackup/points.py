"""Recovery points that were tried: what each target had to give, and what it gave. Data of a run's record, seconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pytest_iopbackup.proven import PhysicalFacts, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFacts:
    """One target: either it is reached with exactly the rows expected there, or it is refused with the right words."""

    name: str
    by: str
    target: str | None
    """As it was written."""
    exclusive: bool = False
    backup_set: str | None = None
    """The backup that the restore began with; None where it was refused before one was chosen."""
    timeline: int | None = None
    """The one asked for; None is the newest."""
    expected: int | None = None
    """Transactions of the ledger that had to be there, by the order of WAL; None where a refusal was expected."""
    mark: str | None = None
    """The mark that lies exactly there, whose row sets were compared, too."""
    tables: int = 0
    """Tables whose digests were compared."""
    still: int = 0
    """In a sweep, tables that were not read again: compared at a point before, and changed by no record since."""
    refusal: str | None = None
    """What had to be said (a regular expression), where a refusal was expected."""
    physical: PhysicalFacts | None = None
    """Of the restored cluster, where it was looked over: in a sweep, at the last point of each restore."""
    reached: str | None = None
    """PostgreSQL's own words on where recovery ended, or those of the refusal."""
    verdict: Verdict
    reason: str | None = None
    """Why the verdict is not ``passed``."""
    seconds: float

    @property
    def compared(self) -> bool:
        """Whether anything restored was compared with anything that had to be there."""
        return bool(self.expected or self.mark)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsFacts:
    """All points that one step tried."""

    points: tuple[PointFacts, ...]
    restores: int
    """How often ``pgbackrest restore`` ran for them."""
    window: str
    """What can be recovered to, in words."""
    seed: int | None = None
    """What random points were drawn with."""

    @property
    def verdict(self) -> Verdict:
        """The worst of all; ``unknown`` where nothing restored was compared."""
        worst = Verdict.worst(point.verdict for point in self.points)
        if worst is Verdict.PASSED and not any(point.compared for point in self.points):
            return Verdict.UNKNOWN
        return worst

    @property
    def reason(self) -> str | None:
        """Why the verdict is not ``passed``: the first of the worst points, and how many more there are."""
        worst = self.verdict
        if worst is Verdict.PASSED:
            return None
        bad = [point for point in self.points if point.verdict is worst]
        if worst is Verdict.UNKNOWN and (not bad or not self.points):
            return "no point was compared with rows that had to be there, so nothing is proven"
        more = f"; and {len(bad) - 1} more of {len(self.points)} points" if len(bad) > 1 else ""
        return f"{bad[0].name}: {bad[0].reason}{more}"

    @property
    def sound(self) -> tuple[PhysicalFacts, ...]:
        """What the physical proof has looked at, of each restored cluster in which it found nothing wrong."""
        passed = (point.physical for point in self.points if point.verdict is Verdict.PASSED)
        return tuple(physical for physical in passed if physical is not None)

    @property
    def refused(self) -> tuple[PointFacts, ...]:
        """The points that had to be refused."""
        return tuple(point for point in self.points if point.refusal is not None)


def compared(points: Iterable[PointFacts]) -> int:
    """Return how many points were compared with rows that had to be there."""
    return sum(point.compared for point in points)
