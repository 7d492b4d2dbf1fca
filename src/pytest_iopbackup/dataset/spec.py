"""How large a dataset is and from which seed it grows."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_iopbackup.errors import UsageError

MOST_USERS = 10_000_000


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """The same spec gives the same rows, byte for byte, with the same version of Faker.

    Raises :class:`~pytest_iopbackup.errors.UsageError` where ``users`` is out of bounds.
    """

    seed: int = 42
    users: int = 2000
    """All other tables follow from it: about seven rows in all per user."""

    def __post_init__(self) -> None:
        if not 1 <= self.users <= MOST_USERS:
            raise UsageError(
                f"dataset: users is {self.users}",
                hint=f"give 1 to {MOST_USERS}; 2000 load in under a second, 100000 in a few",
            )
