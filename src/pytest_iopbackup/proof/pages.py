"""The page checksums of every file of the cluster, as the files are on disk.

The server reads its own files, and its extension ``pageinspect`` computes what each page's checksum has to be. All
databases' files are read, those that take no connections among them, all tablespaces, and all forks. The server goes
on meanwhile and nothing is written, so this works on a system in use.

``pg_basebackup`` verifies less: it passes over every page whose LSN is newer than its own start (basebackup.c), which a
damaged LSN can pretend, and over pages that claim to be new; it switches WAL, too. ``pg_checksums`` wants the server
stopped. What has no checksum is not covered: files of other kinds (``pg_xact`` and the like), WAL, and pages that are
in memory alone, which get theirs when they are written.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psycopg

from pytest_iopbackup.proof.examined import Examined
from pytest_iopbackup.proof.extension import provide
from pytest_iopbackup.proof.session import Cursor, value
from pytest_iopbackup.proven import Finding

REREADS = 5
"""How often a page that does not match is read again, before it counts: one that is being written is torn."""
_PAUSE = 0.02
_NAMED = 5
"""Blocks of a file that are named."""

FILES = """
WITH places (directory) AS (
    SELECT 'global'
    UNION ALL
    SELECT 'base/' || d FROM pg_catalog.pg_ls_dir('base') AS d WHERE d ~ '^[0-9]+$'
    UNION ALL
    SELECT space || '/' || d
    FROM (SELECT pg_catalog.format('pg_tblspc/%%s/PG_%%s_%%s', t, current_setting('server_version_num')::int / 10000,
                                   (SELECT catalog_version_no FROM pg_catalog.pg_control_system())) AS space
          FROM pg_catalog.pg_ls_dir('pg_tblspc') AS t WHERE t ~ '^[0-9]+$') AS spaces,
         pg_catalog.pg_ls_dir(space, true, false) AS d
    WHERE d ~ '^[0-9]+$'
), files (path, size, first) AS (
    SELECT path, (pg_catalog.pg_stat_file(path, true)).size,
           coalesce(pg_catalog.substring(file, '[.]([0-9]+)$')::bigint, 0)
               * (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'segment_size')
    FROM (SELECT directory || '/' || file AS path, file
          FROM places, pg_catalog.pg_ls_dir(directory, true, false) AS file
          WHERE file ~ '^[0-9]+(_(fsm|vm|init))?([.][0-9]+)?$' OFFSET 0) AS named
    WHERE %(paths)s::text[] IS NULL OR path = ANY (%(paths)s)
)
"""
"""What has pages: relations' forks and segments. Each with its size in bytes and the number of its first block."""

CHECKED = """
SELECT path, size, pages, bad
FROM files CROSS JOIN LATERAL (
    SELECT count(*) AS pages, pg_catalog.array_agg(block) FILTER (WHERE bad) AS bad
    FROM (
        SELECT block, page <> empty
                      AND {pageinspect}.page_checksum(page, block)
                          IS DISTINCT FROM ({pageinspect}.page_header(page)).checksum AS bad
        FROM (
            SELECT first + place / {block} + n AS block,
                   pg_catalog.substring(data, n * {block} + 1, {block}) AS page,
                   pg_catalog.decode(pg_catalog.repeat('00', {block}), 'hex') AS empty
            FROM pg_catalog.generate_series(0, size - 1, {chunk}) AS place,
                 LATERAL (SELECT pg_catalog.pg_read_binary_file(path, place, {chunk}, true) AS data OFFSET 0) AS read,
                 pg_catalog.generate_series(0, pg_catalog.length(data) / {block} - 1) AS n
            OFFSET 0
        ) AS page
    ) AS verified
) AS checked
"""
_CHUNK = 128
"""Pages read at a time: 1 MiB, which stays in memory (``work_mem``)."""


@dataclass(frozen=True, slots=True)
class _File:
    size: int
    pages: int
    bad: frozenset[int]


def verify_pages(cursor: Cursor) -> Examined:
    """Verify every page; ``cursor`` is of :func:`session.scratch`. Each damaged file is a finding."""
    if (state := value(cursor, "SELECT pg_catalog.current_setting('data_checksums')")) != "on":
        return Examined(omissions={"page checksums": f"data checksums are {state}"})
    pageinspect = provide(cursor, "pageinspect")
    if pageinspect.schema is None:
        return Examined(omissions={"page checksums": pageinspect.missing})
    cursor.execute("SET LOCAL enable_memoize = off")  # it would keep what was read, by its content
    block = int(value(cursor, "SELECT pg_catalog.current_setting('block_size')"))
    files = _read(cursor, pageinspect.schema, block, None)
    suspects = {path: file for path, file in files.items() if file.bad or file.size % block}
    for _ in range(REREADS):
        if not suspects:
            break
        time.sleep(_PAUSE)  # for whoever writes the page, or removes the file
        again = _read(cursor, pageinspect.schema, block, suspects)
        suspects = {
            path: _File(file.size, file.pages, file.bad & suspects[path].bad)
            for path, file in again.items()
            if file.bad & suspects[path].bad or file.size % block
        }
    return Examined(
        files=len(files),
        pages=sum(file.pages for file in files.values()),
        findings=tuple(_finding(cursor, path, file, block) for path, file in sorted(suspects.items())),
    )


def _read(cursor: Cursor, schema: str, block: int, paths: Iterable[str] | None) -> Mapping[str, _File]:
    query = FILES + CHECKED.format(pageinspect=schema, block=block, chunk=block * _CHUNK)
    found = cursor.execute(query, {"paths": None if paths is None else list(paths)})
    # One without a size was removed since the directory was listed.
    return {path: _File(size, pages, frozenset(bad or ())) for path, size, pages, bad in found if size is not None}


def _finding(cursor: Cursor, path: str, file: _File, block: int) -> Finding:
    said = []
    if file.bad:
        first = sorted(file.bad)[:_NAMED]
        which = f"block{'s' if len(first) > 1 else ''} {', '.join(map(str, first))}"
        more = ", …" if len(file.bad) > len(first) else ""
        said.append(f"{len(file.bad)} of {file.pages} do not: {which}{more}")
    if file.size % block:
        said.append(f"its size, {file.size} bytes, is not a number of pages")
    owner = _owner(cursor, path)
    return Finding(
        kind="file",
        name=f"{path} ({owner})" if owner else path,
        expected="pages that match their checksums",
        actual="; ".join(said),
    )


def _owner(cursor: Cursor, path: str) -> str | None:
    """Name the relation, or the database where it is another one; None where that cannot be found out."""
    parts = re.fullmatch(r"(?:(global)|base/(\d+)|pg_tblspc/(\d+)/[^/]+/(\d+))/(\d+).*", path)
    assert parts is not None  # FILES lists no others
    shared, base, space, there, node = parts.groups()
    try:
        with cursor.connection.transaction():
            row = cursor.execute(
                "SELECT CASE WHEN d.oid IS NULL OR d.datname = pg_catalog.current_database()"
                " THEN pg_catalog.pg_filenode_relation(%(space)s, %(node)s)::pg_catalog.regclass::text"
                " ELSE 'database ' || d.datname END "
                "FROM (SELECT) AS one LEFT JOIN pg_catalog.pg_database AS d ON d.oid = %(database)s",
                {"space": 1664 if shared else int(space or 0), "node": int(node), "database": int(base or there or 0)},
            ).fetchone()
    except psycopg.Error:  # the catalogs may be what is damaged
        return None
    return row[0] if row else None
