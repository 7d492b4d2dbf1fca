"""How a row's name is kept in the words of a sketch, for a row that is gone is nowhere else.

Whole numbers take a word each and uuids two, as they are. Other keys are kept as the beginning of their text, with a
hash of all of it, so that two keys that begin alike are told apart. A table without a key has the beginning of its
rows' text.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

from pytest_iopbackup.proof.difference import plain, readable_values
from pytest_iopbackup.proof.rowset import Table

UUID = "pg_catalog.uuid"
NUMBERS = frozenset({"pg_catalog.int2", "pg_catalog.int4", "pg_catalog.int8"})
MOST = 4
"""Words that a key may take as it is."""

PIECE = 7
"""Bytes of a row's text in a word that is added up."""

TEXT_SEED = 0x6A09E667

_STRING = re.compile(r'"((?:[^"\\]|\\u[0-9a-f]{4}|\\[^u])*)"?')
"""A JSON string, which may end before its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One number of a cell: an expression over the subquery ``rows``, and its bits."""

    expression: sql.Composable
    bits: int


@dataclass(frozen=True, slots=True)
class Name:
    """A row's name. ``whole`` unless it had to be cut; ``key`` is equal for equal keys only."""

    key: tuple[int, ...]
    text: str
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyForm:
    """``kinds`` of a key's columns where they are kept as they are; otherwise ``length`` bytes of text are."""

    columns: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    length: int = 0
    absent: bool = False
    """Whether the table that is read has no such columns: then the words are zero."""

    @property
    def bits(self) -> tuple[int, ...]:
        """The bits of each word."""
        if self.kinds:
            return tuple(128 if kind == "uuid" else 64 for kind in self.kinds)
        return (64, 8 * self.length) if self.columns else (8 * PIECE,) * (self.length // PIECE)

    def fits(self, columns: Sequence[str], types: Mapping[str, str]) -> bool:
        """Whether these columns of a table can be put into these words."""
        if not self.kinds:
            return set(columns) <= types.keys() and bool(columns) == bool(self.columns)
        return len(columns) == len(self.kinds) and all(
            types.get(column) in ((UUID,) if kind == "uuid" else NUMBERS)
            for column, kind in zip(columns, self.kinds, strict=True)
        )

    def given(self) -> list[sql.Composable]:
        """Return the expressions over a row ``t`` that the words need, to be called ``k0``, ``k1`` …."""
        if self.absent:
            return []
        if self.kinds:
            return [_as_it_is(column, kind) for column, kind in zip(self.columns, self.kinds, strict=True)]
        if self.columns:
            return [key_text(self.columns)]
        return [_hex(sql.SQL("t::pg_catalog.text"), self.length)]

    def words(self) -> list[Word]:
        """Return the words, over what was ``given``."""
        if self.absent:
            return [
                Word(expression=sql.SQL("0::bigint" if bits == 64 else f"0::bit({bits})"), bits=bits)
                for bits in self.bits
            ]
        if self.kinds:
            return [Word(expression=sql.SQL(f"rows.k{n}"), bits=bits) for n, bits in enumerate(self.bits)]
        if self.columns:
            prefix = sql.SQL("{}::pg_catalog.text::bit({})").format(
                _hex(sql.SQL("rows.k0"), self.length), sql.Literal(8 * self.length)
            )
            whole = sql.SQL(f'pg_catalog.hashtextextended(rows.k0 COLLATE "C", {TEXT_SEED})')
            return [Word(expression=whole, bits=64), Word(expression=prefix, bits=8 * self.length)]
        return [
            Word(
                expression=sql.SQL(
                    f"('x' || pg_catalog.substr(rows.k0, {2 + 2 * start}, {2 * PIECE}))::bit({8 * PIECE})::bigint"
                ),
                bits=8 * PIECE,
            )
            for start in range(0, self.length, PIECE)
        ]

    def name(self, words: Sequence[int]) -> Name:
        """Read a row's name back. ``words`` without sign."""
        if self.absent:
            return Name(tuple(words), "", whole=False)
        if self.kinds:
            values = [_value(kind, word) for kind, word in zip(self.kinds, words, strict=True)]
            return Name(tuple(words), readable_values(values, self.columns), whole=True)
        if self.columns:
            raw = words[1].to_bytes(self.length, "big")
        else:
            raw = b"".join(word.to_bytes(PIECE, "big") for word in words)
        whole = raw.endswith(b"\0")  # no text has such a byte
        text = raw.rstrip(b"\0").decode(errors="ignore")
        end = "" if whole else "…"
        if not self.columns:
            return Name(tuple(words), plain(text + end), whole)
        return Name(tuple(words), readable_values(values_of(text), self.columns) + end, whole)


def column_types(table: Table) -> dict[str, str]:
    """Return the type of each column, under all domains."""
    return {name: kind.type for (name, _), kind in zip(table.columns, table.kinds, strict=True)}


def key_form(columns: tuple[str, ...], types: Mapping[str, str], room: int) -> KeyForm:
    """Choose how to keep a key in ``room`` bytes of a cell; ``types`` of the table's columns."""
    kinds = tuple("uuid" if types[column] == UUID else "int8" for column in columns)
    if columns and all(types[column] in NUMBERS or types[column] == UUID for column in columns):
        form = KeyForm(columns=columns, kinds=kinds)
        if sum(form.bits) <= 64 * MOST:
            return form
    if columns:
        return KeyForm(columns=columns, length=min(room - 8, 40))
    return KeyForm(columns=(), length=room // (PIECE + 2) * PIECE)


def key_text(columns: Sequence[str]) -> sql.Composable:
    """Return a JSON array of the key columns' text forms, over a row ``t``."""
    parts = [sql.SQL("t.{}::pg_catalog.text").format(sql.Identifier(name)) for name in columns]
    return sql.SQL("pg_catalog.json_build_array({})::pg_catalog.text").format(sql.SQL(", ").join(parts))


def values_of(text: str) -> list[str]:
    """Read a JSON array of strings, the last of which may be cut."""
    return [json.loads(f'"{inner}"') for inner in _STRING.findall(text)]


def _as_it_is(column: str, kind: str) -> sql.Composable:
    name = sql.Identifier(column)
    if kind == "uuid":
        return sql.SQL("('x' || pg_catalog.encode(pg_catalog.uuid_send(t.{}), 'hex'))::bit(128)").format(name)
    return sql.SQL("t.{}::bigint").format(name)


def _value(kind: str, word: int) -> str:
    if kind == "uuid":
        return str(uuid.UUID(int=word))
    return str(word - (1 << 64) if word >= 1 << 63 else word)


def _hex(text: sql.Composable, length: int) -> sql.Composable:
    """Return the first ``length`` bytes of a text as ``x…``, filled with zeros."""
    return sql.SQL(
        "pg_catalog.rpad('x' || pg_catalog.encode(pg_catalog.substr(pg_catalog.convert_to({}, 'UTF8'), 1, {}), 'hex'),"
        " {}, '0')"
    ).format(text, sql.Literal(length), sql.Literal(2 * length + 1))
