"""Names that the user typed, and the nearest ones that exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(wrong: str, valid: Iterable[str], unlisted: Iterable[str] = ()) -> str:
    """Return "did you mean …? …": the nearest name, where one is near, and all valid ones but the unlisted."""
    names = sorted(valid)
    near = difflib.get_close_matches(wrong, [*names, *unlisted], n=1, cutoff=0.5)
    listed = "valid: " + (", ".join(names) or "none")
    return f"did you mean {near[0]!r}? {listed}" if near else listed
