"""The schema, the roles and all else in the catalogs, as named objects with a definition that a person can read.

What a physical restore brings back is the same catalogs, so definitions are compared as text, to the letter.
Not compared: what initdb made and nobody granted or revoked, comments on it, the location of tablespaces, statistics,
and settings of the server (a restore rewrites ``postgresql.auto.conf``).
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass
from importlib import resources

from pytest_iopbackup.proof.session import Cursor
from pytest_iopbackup.proven import Finding

WIDTH = 100
"""Longest piece of a definition in a finding, in characters."""

OTHERS = (
    "pg_am", "pg_amop", "pg_amproc", "pg_cast", "pg_collation", "pg_conversion", "pg_default_acl", "pg_event_trigger",
    "pg_foreign_data_wrapper", "pg_foreign_server", "pg_language", "pg_opclass", "pg_operator", "pg_opfamily",
    "pg_publication", "pg_publication_rel", "pg_statistic_ext", "pg_transform", "pg_ts_config", "pg_ts_dict",
    "pg_ts_parser", "pg_ts_template",
)  # fmt: skip
"""Catalogs of rarer objects: their definition is the catalog's row."""

SINCE_15 = ("pg_parameter_acl", "pg_publication_namespace")

SECRET = ("pg_subscription", "pg_user_mapping")
"""Rows that may hold a password: their definition is a digest."""

CHILDREN = frozenset({"column", "constraint", "trigger", "rule", "policy"})

MISSING = "missing"
ABSENT = "no such object"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogObject:
    """Anything with a name; ``kind`` and ``name`` together are unique."""

    kind: str
    name: str
    definition: str


def catalog_objects(cursor: Cursor) -> tuple[CatalogObject, ...]:
    """Read all objects, ordered by kind and name. The cursor's search_path must be empty."""
    since_15 = cursor.connection.info.server_version >= 150000
    query = [resources.files(__package__).joinpath("catalog.sql").read_text(encoding="utf-8")]
    for catalog in (*OTHERS, *SECRET, *(SINCE_15 if since_15 else ())):
        row = "(to_jsonb(x) - 'oid')::text"
        definition = f"left(encode(sha256(convert_to({row}, 'UTF8')), 'hex'), 16)" if catalog in SECRET else row
        query.append(
            f"SELECT o.type, o.identity, {definition} "
            f"FROM {catalog} AS x, pg_identify_object('{catalog}'::regclass, x.oid, 0) AS o WHERE x.oid >= 16384"
        )
    if since_15:
        query.append(
            "SELECT 'collation version', 'database ' || quote_ident(d.datname), "
            "pg_database_collation_actual_version(d.oid) FROM pg_database AS d "
            "WHERE pg_database_collation_actual_version(d.oid) IS NOT NULL"
        )
    cursor.execute("\nUNION ALL\n".join(query))
    rows = sorted(cursor.fetchall())
    return tuple(CatalogObject(kind=kind, name=name, definition=definition) for kind, name, definition in rows)


def object_findings(expected: Iterable[CatalogObject], actual: Iterable[CatalogObject]) -> tuple[Finding, ...]:
    """Name every object that is missing, unexpected or defined otherwise.

    Columns, constraints and the like of a table that is itself missing or unexpected are left out: one line says it.
    """
    wanted = {(item.kind, item.name): item.definition for item in expected}
    found = {(item.kind, item.name): item.definition for item in actual}
    pairs = [(key, wanted[key], MISSING) for key in _topmost(wanted.keys() - found.keys())]
    pairs += [(key, ABSENT, found[key]) for key in _topmost(found.keys() - wanted.keys())]
    pairs += [(key, wanted[key], found[key]) for key in wanted.keys() & found.keys() if wanted[key] != found[key]]
    findings = []
    for (kind, name), before, after in sorted(pairs):
        before_part, after_part = excerpts(before, after)
        findings.append(Finding(kind=kind, name=name, expected=before_part, actual=after_part))
    return tuple(findings)


def _topmost(keys: Set[tuple[str, str]]) -> list[tuple[str, str]]:
    parents = tuple(f"{name}." for kind, name in keys if kind not in CHILDREN)
    return [(kind, name) for kind, name in keys if kind not in CHILDREN or not name.startswith(parents)]


def excerpts(expected: str, actual: str) -> tuple[str, str]:
    """Cut two texts to at most ``WIDTH`` characters around the first difference, each on one line."""
    texts = [text.replace("\n", "\\n") for text in (expected, actual)]
    if max(map(len, texts)) <= WIDTH:
        return texts[0], texts[1]
    same = next(
        (place for place, pair in enumerate(zip(*texts, strict=False)) if pair[0] != pair[1]), min(map(len, texts))
    )
    start = max(0, same - WIDTH // 4)
    first, second = (
        ("…" if start else "") + text[start : start + WIDTH] + ("…" if len(text) > start + WIDTH else "")
        for text in texts
    )
    return first, second
