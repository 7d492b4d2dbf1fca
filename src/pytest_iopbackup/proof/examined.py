"""What one part of the physical proof has looked at, and what it found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pytest_iopbackup.proven import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """How many of each were looked at, what is wrong, and what could not be looked at, and why."""

    files: int = 0
    pages: int = 0
    tables: int = 0
    indexes: int = 0
    constraints: int = 0
    findings: tuple[Finding, ...] = ()
    omissions: Mapping[str, str] = field(default_factory=dict)


def together(parts: Iterable[Examined]) -> Examined:
    """Add parts up; a finding that several of them made is there once."""
    parts = tuple(parts)
    return Examined(
        files=sum(part.files for part in parts),
        pages=sum(part.pages for part in parts),
        tables=sum(part.tables for part in parts),
        indexes=sum(part.indexes for part in parts),
        constraints=sum(part.constraints for part in parts),
        findings=tuple(dict.fromkeys(finding for part in parts for finding in part.findings)),
        omissions={name: why for part in parts for name, why in part.omissions.items()},
    )
