"""A directory of the repository put back in its place, while WAL is pushed to what is there meanwhile."""

from __future__ import annotations

from pathlib import Path

from pytest_iopbackup.faults.site import Site

_MOVE_BACK = """
find "$2" -name "*.tmp" -delete
mkdir -p "$3"
tries=0
until mv -T "$2" "$1" 2>"$3/refusal"; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { cat "$3/refusal" >&2; exit 1; }
    [ ! -e "$1" ] || mv -T "$1" "$3/$tries"
done
"""
# By links, where that can be done: a file is there as a whole, or not yet.
_MERGE = """
for part in "$2"/[0-9]*; do
    [ -e "$part/$3" ] || continue
    find "$part" -name "*.tmp" -delete
    cp -anl "$part/$3/." "$1/$3/" 2>/dev/null || cp -an "$part/$3/." "$1/$3/"
done
rm -rf "$2"
"""


def put_back_with_wal(site: Site, path: Path, archive: str) -> None:
    """Put a directory back, and into its ``archive`` the WAL that was pushed to what was in its place meanwhile.

    A push that is under way makes its directories again wherever they are moved away; it fails, and is tried again,
    where what it has half written is not there any more.
    """
    saved = site.saved(path)
    meanwhile = Path(f"{saved}.meanwhile")
    if site.exists(saved):
        site.script(_MOVE_BACK, path, saved, meanwhile)
    site.script(_MERGE, path, meanwhile, archive)
