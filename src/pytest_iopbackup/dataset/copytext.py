"""Values as fields of PostgreSQL's COPY text format, fields as lines (the manual's page on COPY, "Text Format")."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

Column = Iterable[str]
"""One field per row, already encoded."""

NULL = "\\N"

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_QUOTED_IN_ARRAY = str.maketrans({"\\": "\\\\", '"': '\\"'})


def text(value: str | None) -> str:
    r"""Encode a text. None is NULL, which differs from the empty string and from the two characters ``\N``."""
    return NULL if value is None else value.translate(_ESCAPES)


def binary(value: bytes | None) -> str:
    """Encode a bytea, in its hex form."""
    return NULL if value is None else f"\\\\x{value.hex()}"


def document(value: object) -> str:
    """Encode a jsonb; None is JSON's null, not SQL's."""
    return text(json.dumps(value, ensure_ascii=False))


def array(items: Sequence[str | None]) -> str:
    """Encode a one-dimensional array; every element is quoted, so that commas, braces and ``NULL`` stay text."""
    quoted = ("NULL" if item is None else f'"{item.translate(_QUOTED_IN_ARRAY)}"' for item in items)
    return text("{" + ",".join(quoted) + "}")


def lines(columns: Sequence[Column]) -> bytes:
    """Join columns of equal length to rows, in UTF-8."""
    return "".join(["\t".join(row) + "\n" for row in zip(*columns, strict=True)]).encode()
