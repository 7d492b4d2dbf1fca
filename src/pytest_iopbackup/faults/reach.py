"""A data directory out of everybody's reach, as after the loss of its disk, and back again as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_iopbackup.errors import HealError, IopError, ProofError
from pytest_iopbackup.faults.site import Site


@contextmanager
def out_of_reach(site: Site) -> Iterator[None]:
    """Take a stopped server's data directory away from everybody, on its own disk, and give it back.

    Raises ProofError where it is still there, HealError where it cannot be given back.
    """
    data = site.stack.places.data
    away = data.with_name(f"{data.name}.out-of-reach")
    try:
        site.surgery("mv", "-T", str(data), str(away))
        if site.exists(data):
            raise ProofError(f"{data} is still there, though it was moved away")
        yield
    finally:
        try:
            site.script('[ ! -e "$2" ] || mv -T "$2" "$1"', data, away)
        except IopError as error:
            raise HealError(f"the data directory {away} cannot be moved back to {data}: {error.message}") from error
