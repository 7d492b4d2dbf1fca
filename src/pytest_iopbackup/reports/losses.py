"""What crashes cost, as people read it: the section of the report."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_iopbackup.crashes import Crash, CrashFacts
from pytest_iopbackup.reports.grid import grid
from pytest_iopbackup.reports.text import number, spread

_HEADERS = (
    "crash", "at", "after s", "acknowledged", "in flight", "lost", "oldest lost s", "COMMIT sent", "of these kept",
    "restore s", "crash recovery s", "backup s old",
)  # fmt: skip


def losses(facts: CrashFacts) -> Iterator[str]:
    """Yield the section on a step's crashes in Markdown."""
    yield "\n### Crashes\n"
    yield (
        f"No crash may lose a commit older than {facts.promised:g} s ({facts.promise}); without archived WAL the "
        f"schedule would promise {facts.backup_every:g} s, the time between two backups."
    )
    if facts.settings:
        settings = ", ".join(f"`{name} = {value}`" for name, value in facts.settings.items())
        yield (
            f"The server ran with {settings}. Before each crash its checkpointer was woken: after crash recovery "
            "PostgreSQL may leave `archive_timeout` out of force for as long as `checkpoint_timeout`.\n"
        )
    if not facts.crashes:
        return
    rows = [_row(position, crash) for position, crash in enumerate(facts.crashes, 1)]
    yield grid(_HEADERS, rows)
    yield (
        f"\nLost with the disk, over {len(rows)} of {facts.planned} crashes: {spread(facts.ages, 2)} s, "
        f"{spread(facts.counts, 0)} transactions. With the disk kept: none, in any crash that stands here."
    )
    for position, crash in enumerate(facts.crashes, 1):
        if crash.lost.total:
            yield f"- crash {position}, the oldest lost: {'; '.join(f'`{one}`' for one in crash.lost.examples[:3])}"
        if crash.hole:
            yield f"- crash {position}: WAL segment `{crash.hole}` was missing; recovery ended there"


def _row(position: int, crash: Crash) -> tuple[object, ...]:
    return (
        position,
        f"{crash.moment:%H:%M:%S.%f}"[:-3],
        f"{crash.after:.2f}",
        number(crash.acknowledged),
        crash.in_flight,
        number(crash.lost.total),
        f"{crash.oldest:.2f}",
        crash.indeterminate,
        crash.recovered,
        f"{crash.restore.outage_seconds:.2f}",
        f"{crash.recovery_seconds:.2f}",
        f"{crash.backup_age:.0f}",
    )
