"""What the fast tier has learned of a mark, kept beside its capture: ``fast.json``.

It may make no wrong database pass. It holds digests of a copy that the portable tier found equal, under a seal (HMAC,
RFC 2104) whose key only the capture has; so it is as good as the capture's own digests are. What is damaged, changed,
another capture's, or not there, is nothing: then the portable tier decides, and the digests are learned anew.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from contextlib import suppress
from pathlib import Path

from pytest_iopbackup.proof.capture import Capture
from pytest_iopbackup.proof.tiers import Known


def recall(capture: Capture) -> Known | None:
    """Return what was learned of this capture; None if there is nothing, or it is not what was written."""
    try:
        content = json.loads(_place(capture).read_bytes())
        known = Known(made_with=content["made_with"], digests=content["digests"])
        intact = hmac.compare_digest(content["seal"], _seal(capture, known))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return known if intact else None


def note(capture: Capture, known: Known) -> None:
    """Keep it for the next restore to the mark."""
    content = {"made_with": known.made_with, "digests": dict(known.digests), "seal": _seal(capture, known)}
    part = _place(capture).with_suffix(".part")
    with suppress(OSError):  # it saves time, and proves nothing by itself
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(_place(capture))


def _seal(capture: Capture, known: Known) -> str:
    content = json.dumps([known.made_with, sorted(known.digests.items())]).encode()
    return hmac.new(bytes.fromhex(capture.seal), content, hashlib.sha256).hexdigest()


def _place(capture: Capture) -> Path:
    return capture.directory / "fast.json"
