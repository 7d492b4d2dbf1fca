"""What a benchmark claims: a figure against its bound. One word for all of them, and one table.

``run_all.py`` names a file in ``BENCHMARK_CLAIMS``, to which each claim is appended as a line of JSON.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A figure that must not be above its bound, or, with ``at_least``, below it; None: it could not be measured."""

    what: str
    figure: float | None
    bound: float
    unit: str = "times"
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """``met``, ``MISSED``, or ``unknown``."""
        if self.figure is None:
            return "unknown"
        return "met" if (self.figure >= self.bound if self.at_least else self.figure <= self.bound) else "MISSED"

    @property
    def limit(self) -> str:
        """The bound in words."""
        return f"at {'least' if self.at_least else 'most'} {self.bound:g} {self.unit}"


def judge(*claims: Claim) -> int:
    """Print each claim's verdict, and keep it for the table; return 0 if all are met, else 1."""
    for claim in claims:
        figure = "not measured" if claim.figure is None else f"{claim.figure:.3g} {claim.unit}"
        print(f"{claim.what}: {figure}; bound {claim.limit}: {claim.verdict}")
    place = os.environ.get("BENCHMARK_CLAIMS")
    if place:
        with Path(place).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(claim)) + "\n" for claim in claims)
    return 0 if claims and all(claim.verdict == "met" for claim in claims) else 1
