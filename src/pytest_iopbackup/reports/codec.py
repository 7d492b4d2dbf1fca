"""Records as JSON and back."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")


@lru_cache(maxsize=1)
def _converter() -> Converter:
    from cattrs.preconf.json import make_converter  # noqa: PLC0415 - only a run that has a record needs it

    return make_converter()


def to_data(record: object) -> Any:
    """Return a record as what JSON can hold; times are ISO 8601 in UTC."""
    return _converter().unstructure(record)


def from_data(data: Any, kind: type[T]) -> T:
    """Return the record that :func:`to_data` gave. Raises what cattrs raises where data does not fit."""
    return _converter().structure(data, kind)


def to_json(record: object) -> str:
    """Return a record as indented JSON."""
    return json.dumps(to_data(record), indent=2, ensure_ascii=False) + "\n"
