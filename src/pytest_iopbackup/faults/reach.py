"""A data directory out of everybody's reach, as after the loss of its disk, and back again as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_iopbackup.errors import HealError, IopError, ProofError
from pytest_iopbackup.faults.site import Site

_LEFT = "PG_VERSION"
"""By which others know that there is a cluster, so that nobody makes a new one or asks for a restore."""
_TAKE = f'mkdir "$2"; find "$1" -mindepth 1 -maxdepth 1 ! -name {_LEFT} -exec mv -t "$2" -- {{}} +'
_GIVE_BACK = '[ ! -d "$2" ] || { find "$2" -mindepth 1 -maxdepth 1 -exec mv -t "$1" -- {} + && rmdir "$2"; }'


@contextmanager
def out_of_reach(site: Site) -> Iterator[None]:
    """Take all that a stopped server's data directory holds away, but for one file, and give it back.

    It is moved on its own file system, so nothing in it changes. Raises ProofError where any of it is still there,
    HealError where it cannot be given back.
    """
    data = site.stack.places.data
    away = data.with_name(f"{data.name}.out-of-reach")
    try:
        site.script(_TAKE, data, away)
        left = site.surgery("ls", "-A", str(data)).stdout.split()
        if left != [_LEFT]:
            raise ProofError(f"in {data} there is still {', '.join(left) or 'nothing'}, not {_LEFT} alone")
        yield
    finally:
        try:
            site.script(_GIVE_BACK, data, away)
        except IopError as error:
            raise HealError(f"what is in {away} cannot be moved back to {data}: {error.message}") from error
