"""How a value of each type is hashed so that every stored bit counts, as SQL.

An extended hash function of PostgreSQL may be used where it takes all bits (``hashfunc.c``, ``uuid.c``). It is blind
to numeric ``1.0`` and ``-1.0``, to ``-0``, to the upper half of a bigint, to half the bits of a timestamp, to the
shape of an array. There another form is hashed, or the function is asked only for values that it tells apart:

- bigint is the *seed* of the hash of a constant, for all 64 bits of a seed count;
- numeric, json and jsonb by their text, which is exact; so too types without a send function (aclitem, many of
  extensions), and xml, whose send form leaves out its declaration;
- timestamps: the hash function folds the upper half onto the lower one. From 2000 on a second hash, of the time cut to
  a multiple of 2**32 µs, gives the upper half alone. Earlier ones and date's infinities go by their send form;
- float: NaN, which may carry bits, and the two zeros by their send form.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytest_iopbackup.proof.tables import Kind


@dataclass(frozen=True, slots=True)
class Form:
    """Templates: what is made of the column ``{x}`` once per row, and a hash of that, never NULL.

    In ``hash`` ``{0}`` and on are what was passed; ``{seed}``, ``{other}`` and ``{null}`` constants of 64 bits,
    ``{number}`` one of 32.
    """

    hash: str
    passed: tuple[str, ...] = ("{x}",)


def _strict(call: str, *passed: str) -> Form:
    return Form(f"coalesce({call}, {{null}})", passed or ("{x}",))


def _guarded(call: str, guard: str, passed: tuple[str, ...], send: str) -> Form:
    """Hash by ``call`` where ``guard`` holds (the last thing passed is NULL elsewhere), by the send form else."""
    rare = f"pg_catalog.hash_record_extended(ROW({send}({{0}})), {{other}})"
    return Form(
        f"coalesce({call}, CASE WHEN {{0}} IS NULL THEN {{null}} ELSE {rare} END)",
        (*passed[:-1], f"CASE WHEN {guard} THEN {passed[-1]} END"),
    )


def _float(size: int) -> Form:
    call = f"pg_catalog.hashfloat{size}extended({{1}}, {{seed}})"
    return _guarded(call, "{x} <> 0 AND {x} <= 'Infinity'", ("{x}", "{x}"), f"pg_catalog.float{size}send")


def _timestamp(kind: str, plain: str) -> Form:
    """``plain``: a template that makes a timestamp without time zone, of the same bits."""
    start = f"'2000-01-01 00:00:00+00'::pg_catalog.{kind}"
    cut = f"pg_catalog.date_bin('4294.967296 s'::pg_catalog.interval, {{x}}, {start})"
    call = "pg_catalog.timestamp_hash_extended({{{}}}, {{{}}})"
    return _guarded(
        f"{call.format(0, 'seed')} # {call.format(1, 'other')}",
        f"{{x}} >= {start}",
        (plain.format(x="{x}"), plain.format(x=cut)),
        "pg_catalog.timestamp_send",
    )


TEXT = _strict('pg_catalog.hashtextextended({0} COLLATE pg_catalog."C", {seed})')
AS_TEXT = Form(TEXT.hash, ("{x}::pg_catalog.text",))
ENUM = _strict("pg_catalog.hashenumextended({0}, {seed})")
"""By the label's OID, which is what is stored."""

FORMS = {
    "pg_catalog.bool": Form("CASE WHEN {0} THEN {seed} WHEN {0} IS NOT NULL THEN {other} ELSE {null} END"),
    "pg_catalog.int2": _strict("pg_catalog.hashint2extended({0}, {seed})"),
    "pg_catalog.int4": _strict("pg_catalog.hashint4extended({0}, {seed})"),
    "pg_catalog.int8": _strict("pg_catalog.hashint4extended({number}, {0})"),
    "pg_catalog.oid": _strict("pg_catalog.hashoidextended({0}, {seed})"),
    "pg_catalog.char": _strict("pg_catalog.hashcharextended({0}, {seed})"),
    "pg_catalog.uuid": _strict("pg_catalog.uuid_hash_extended({0}, {seed})"),
    "pg_catalog.text": TEXT,
    "pg_catalog.varchar": TEXT,
    "pg_catalog.json": AS_TEXT,
    "pg_catalog.jsonb": AS_TEXT,
    "pg_catalog.numeric": AS_TEXT,
    "pg_catalog.float4": _float(4),
    "pg_catalog.float8": _float(8),
    "pg_catalog.timestamp": _timestamp("timestamp", "{x}"),
    "pg_catalog.timestamptz": _timestamp("timestamptz", "pg_catalog.timezone('0'::pg_catalog.interval, {x})"),
    "pg_catalog.date": _guarded(
        "pg_catalog.hashint4extended({1}, {seed})",
        "pg_catalog.isfinite({x})",
        ("{x}", "{x} - '2000-01-01'::pg_catalog.date"),
        "pg_catalog.date_send",
    ),
}
"""By the type's name without quotes: which ones need them is another matter in each release (json does from 16 on)."""

ELEMENTS = frozenset({"pg_catalog.bytea"})
"""Types whose own hash, as an element of a record, is exact."""


def form(kind: Kind, *, as_text: bool) -> Form | None:
    """Return how to hash a column; None where it goes by its send form, with others in one record."""
    if as_text:
        return AS_TEXT
    return ENUM if kind.typtype == "e" else FORMS.get(kind.type.replace('"', ""))
