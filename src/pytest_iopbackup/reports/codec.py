"""Records as JSON and back."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")


@lru_cache(maxsize=1)
def _converter() -> Converter:
    from cattrs.preconf.json import make_converter  # noqa: PLC0415 - only a run that has a record needs it

    return make_converter()


def to_json(record: object, *, indent: int | None = None) -> str:
    """Return a record as JSON, for people with ``indent`` spaces a level; times are ISO 8601 in UTC."""
    return json.dumps(_converter().unstructure(record), indent=indent, ensure_ascii=False) + "\n"


def from_json(text: str, kind: type[T]) -> T:
    """Return the record that :func:`to_json` wrote. Raises what cattrs raises where the text does not fit."""
    return _converter().structure(json.loads(text), kind)
