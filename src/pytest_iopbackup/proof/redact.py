"""What remains of values and keys where nobody but the data's owner may see them: counts, columns, a short digest."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace

from pytest_iopbackup.proven import Differing, Finding, LedgerJudgement

_SALT = secrets.token_bytes(16)
"""Of this process: without it, whoever guesses small keys could try them all."""

HIDDEN = "(hidden)"
DATA = frozenset({"sequence"})
"""Kinds of findings whose words are taken from data; definitions of objects are none."""


def hidden(text: str) -> str:
    """Return a digest that is the same for the same text within one process, and says nothing else."""
    return f"#{hashlib.blake2b(text.encode(), key=_SALT, digest_size=4).hexdigest()}"


def without_values(finding: Finding) -> Finding:
    """Hide what a finding tells of data."""
    if finding.kind not in DATA:
        return finding
    return replace(finding, expected=HIDDEN, actual=HIDDEN)


def without_rows(judgement: LedgerJudgement) -> LedgerJudgement:
    """Hide the requests and rows that a judgement names."""
    return replace(judgement, lost=_hidden(judgement.lost), unexpected=_hidden(judgement.unexpected))


def _hidden(differing: Differing) -> Differing:
    return replace(differing, examples=tuple(hidden(example) for example in differing.examples))
