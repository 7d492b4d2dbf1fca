"""Random columns, quickly: every call makes one column for all rows of a chunk."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from random import Random
from typing import TypeVar

from pytest_iopbackup.dataset.copytext import NULL

T = TypeVar("T")

# 4999 is a prime, and so are the factors: the times of day look irregular and no two are equal.
_TIMES = tuple(f" {n % 24:02}:{n * 7 % 60:02}:{n * 13 % 60:02}.{n * 7919 % 1_000_000:06}+00" for n in range(4999))


def days(first: date, count: int) -> tuple[str, ...]:
    """Days in a row, to draw timestamps from."""
    return tuple((first + timedelta(days=n)).isoformat() for n in range(count))


class Draw:
    """Columns for rows of these numbers, counted from 0. Values depend on the seed and on the order of the calls."""

    def __init__(self, seed: str, numbers: range) -> None:
        self.numbers = numbers
        self.rows = len(numbers)
        self._rng = Random(seed)  # noqa: S311 - reproducible, not secret

    def pick(self, pool: Sequence[T]) -> list[T]:
        """Values of a pool, all equally likely; one that is in the pool twice comes twice as often."""
        return self._rng.choices(pool, k=self.rows)

    def fields(self, pool: Sequence[str], nulls: int) -> list[str]:
        """Fields of a pool, ``nulls`` percent of them NULL."""
        return self._sprinkle(self.pick(pool), nulls)

    def moments(self, pool: Sequence[str], nulls: int = 0) -> list[str]:
        """Timestamps on days of a pool, to the microsecond, ``nulls`` percent of them NULL."""
        days_and_times = zip(self.pick(pool), self.pick(_TIMES), strict=True)
        return self._sprinkle([day + time for day, time in days_and_times], nulls)

    def integers(self, bits: int) -> list[int]:
        """Integers from 0 to 2**bits - 1."""
        return [self._rng.getrandbits(bits) for _ in range(self.rows)]

    def binaries(self, size: int) -> list[str]:
        """Random bytea fields of ``size`` bytes."""
        return [f"\\\\x{digits}" for digits in self._hexadecimals(size)]

    def uuids(self) -> list[str]:
        """Random UUIDs (RFC 9562, version 4), without hyphens: PostgreSQL reads them so, too."""
        return [f"{digits[:12]}4{digits[13:16]}8{digits[17:]}" for digits in self._hexadecimals(16)]

    def _hexadecimals(self, size: int) -> list[str]:
        digits = self._rng.randbytes(self.rows * size).hex()
        return [digits[at : at + 2 * size] for at in range(0, len(digits), 2 * size)]

    def _sprinkle(self, column: list[str], nulls: int) -> list[str]:
        if nulls == 0:
            return column
        kept = self.pick((True,) * (100 - nulls) + (False,) * nulls)
        return [value if keep else NULL for value, keep in zip(column, kept, strict=True)]
