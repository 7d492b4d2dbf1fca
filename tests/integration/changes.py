"""Values of every kind of type, and their nearest neighbours: what a careless digest takes for the same."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a text, b numeric);
CREATE DOMAIN age AS integer;
CREATE DOMAIN name_of AS varchar(40);
CREATE DOMAIN mood_of AS mood;
CREATE DOMAIN numbers AS integer[];
CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
"""

FOLD = 2**32 - 1
"""What hashint8 takes for nothing: one more above, one less below."""


@dataclass(frozen=True)
class Kind:
    """A type, values of it in some form, a neighbour of one, and how to write one as PostgreSQL reads it."""

    type: str
    values: st.SearchStrategy[Any]
    near: Callable[[Any], st.SearchStrategy[Any]]
    write: Callable[[Any], str] = str


def _bits(type: str, width: int, write: Callable[[int], str]) -> Kind:  # noqa: A002
    """Return a type of so many bits, of which one is turned, or each half changed at once."""
    values = st.integers(0, 2**width - 1) | st.sampled_from([0, 1, 2 ** (width - 1), 2**width - 1])
    turned = [1 << bit for bit in range(width)] + [FOLD, 2**width - 1, (1 << width // 2) + 1]
    return Kind(type, values, lambda value: st.sampled_from(turned).map(lambda by: (value ^ by) % 2**width), write)


def _signed(width: int) -> Callable[[int], str]:
    return lambda value: str(value - 2**width if value >= 2 ** (width - 1) else value)


def _float(code: str) -> Callable[[int], str]:
    def write(value: int) -> str:
        size = struct.calcsize(code)
        number = struct.unpack(">" + code, value.to_bytes(size, "big"))[0]
        return "NaN" if math.isnan(number) else repr(number)

    return write


def _picked(type: str, *values: str) -> Kind:  # noqa: A002
    """Return a type with values that are told one by one; each is near each other."""
    return Kind(type, st.sampled_from(values), lambda _: st.sampled_from(values))


def _moment(type: str) -> Kind:  # noqa: A002
    start = datetime(2000, 1, 1)  # noqa: DTZ001 - counted in PostgreSQL's own microseconds
    low, high = (datetime(1, 1, 1) - start, datetime(9999, 12, 31) - start)  # noqa: DTZ001
    micro = timedelta(microseconds=1)
    steps = st.sampled_from([1, -1, FOLD, -FOLD, 2**32, -(2**32), 2**33, 3_600_000_000, 86_400_000_000])

    def write(value: int | str) -> str:
        return value if isinstance(value, str) else (start + value * micro).isoformat(sep=" ") + "+00"

    def near(value: int | str) -> st.SearchStrategy[int | str]:
        if isinstance(value, str):
            return rare
        other = steps.map(lambda step: max(low // micro, min(high // micro, value + step)))
        return other | st.just(max(low // micro, min(high // micro, ~value))) | rare

    rare: st.SearchStrategy[int | str] = st.sampled_from(
        ["infinity", "-infinity", "4713-01-01 00:00:00+00 BC", "4713-01-01 00:00:00.000001+00 BC",
         "294276-12-31 23:59:59.999999+00", "294276-12-31 22:48:25.032704+00"]
    )  # fmt: skip
    return Kind(type, st.integers(low // micro, high // micro) | st.integers(-FOLD, FOLD) | rare, near, write)


def _day() -> Kind:
    days = st.integers(1, date.max.toordinal())
    rare: st.SearchStrategy[int | str] = st.sampled_from(["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31"])

    def near(value: int | str) -> st.SearchStrategy[int | str]:
        return rare if isinstance(value, str) else rare | st.just(value + (1 if value < 9999 else -1))

    return Kind("date", days | rare, near, lambda v: v if isinstance(v, str) else date.fromordinal(v).isoformat())


def _numeric(type: str) -> Kind:  # noqa: A002
    rare: st.SearchStrategy[Any] = st.sampled_from(["NaN", "Infinity", "-Infinity"])
    values = st.tuples(st.integers(-(10**25), 10**25) | st.integers(-10, 10), st.integers(0, 20)) | rare

    def near(value: Any) -> st.SearchStrategy[Any]:
        if isinstance(value, str):
            return rare
        digits, scale = value
        return st.sampled_from([(-digits, scale), (digits * 10, scale + 1), (digits + 1, scale), (digits, scale + 1)])

    def write(value: Any) -> str:
        return value if isinstance(value, str) else f"{value[0]}e-{value[1]}" if value[1] else str(value[0])

    return Kind(type, values, near, write)


def _interval() -> Kind:
    part = st.integers(-1000, 1000)

    def near(value: tuple[int, int, int]) -> st.SearchStrategy[Any]:
        months, days, micros = value
        return st.sampled_from(
            [(months + 1, days - 30, micros), (months, days + 1, micros - 86_400_000_000),
             (months, days, micros + 1), (months, days, micros + FOLD), (-months, days, micros)]
        )  # fmt: skip

    return Kind("interval", st.tuples(part, part, part), near, lambda v: f"{v[0]} mons {v[1]} days {v[2]} microseconds")


_CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])


def _text(type: str, longest: int = 40) -> Kind:  # noqa: A002
    words = st.text(_CHARACTERS, max_size=longest) | st.sampled_from(["", " ", "a", "NULL", "a|b", "\u00e9", "e\u0301"])

    def near(value: str) -> st.SearchStrategy[str]:
        return st.sampled_from(
            [(value + " ")[:longest], value.swapcase()[:longest], value[:-1], value[1:], (value + value)[:longest]]
        )

    return Kind(type, words, near)


def _bytes() -> Kind:
    def near(value: bytes) -> st.SearchStrategy[bytes]:
        turned = st.integers(0, 8 * len(value) - 1).map(
            lambda bit: (int.from_bytes(value, "big") ^ (1 << bit)).to_bytes(len(value), "big")
        )
        return st.sampled_from([value + b"\0", b"\0" + value, value * 2]) | (turned if value else st.nothing())

    long = st.integers(0, 255).map(lambda byte: bytes([byte, 255 - byte]) * 4000)  # out of line, or compressed
    return Kind("bytea", st.binary(max_size=40) | long, near, lambda value: "\\x" + value.hex())


def _array(of: Kind) -> Kind:
    elements = st.lists(st.none() | of.values, max_size=4)

    def write(value: list[Any]) -> str:
        return "{" + ",".join("NULL" if item is None else json.dumps(of.write(item)) for item in value) + "}"

    def near(value: list[Any]) -> st.SearchStrategy[list[Any]]:
        return st.sampled_from([[*value, None], value[1:], value[::-1]])

    return Kind(of.type + "[]", elements, near, write)


_INT4 = _bits("integer", 32, _signed(32))
_NUMERIC = _numeric("numeric")

KINDS = (
    _bits("smallint", 16, _signed(16)),
    _INT4,
    _bits("bigint", 64, _signed(64)),
    _bits("oid", 32, str),
    _bits("real", 32, _float("f")),
    _bits("double precision", 64, _float("d")),
    _bits("uuid", 128, lambda value: f"{value:032x}"),
    _bits("bit(8)", 8, lambda value: f"{value:08b}"),
    _bits("money", 64, lambda value: f"{value // 2**56}.{value % 100:02}"),
    _picked("money", "1", "-1", "42949672.96", "0", "92233720368547758.07"),
    _bits("pg_lsn", 64, lambda value: f"{value >> 32:X}/{value & 0xFFFFFFFF:X}"),
    _bits("xid8", 64, str),
    _bits("macaddr8", 64, lambda value: f"{value:016x}"),
    _bits("macaddr", 48, lambda value: f"{value:012x}"),
    _bits("age", 32, _signed(32)),
    _NUMERIC,
    _moment("timestamp"),
    _moment("timestamptz"),
    _day(),
    _interval(),
    _text("text"),
    _text("varchar"),
    _text("bpchar"),
    _text("char(40)"),
    _text("name_of"),
    _text("text COLLATE caseless"),
    _text("name", 15),
    _bytes(),
    _array(_INT4),
    _array(_NUMERIC),
    _array(_bits("bigint", 64, _signed(64))),
    _picked("integer[]", "{{1,2}}", "{1,2}", "[0:1]={1,2}", "{{1},{2}}", "{}", "{NULL}", "{0}"),
    _picked("numbers", "{1,2}", "{{1,2}}", "{2,1}"),
    _picked("text[]", "{NULL}", '{"NULL"}', '{""}', "{}", '{"a,b"}', "{a,b}"),
    _picked("boolean", "t", "f"),
    _picked('"char"', "a", "b", ""),
    _picked("mood", "sad", "ok", "happy"),
    _picked("mood_of", "sad", "ok", "happy"),
    _picked("mood[]", "{sad}", "{ok}", "{sad,ok}"),
    _picked("pair", "(x,1.0)", "(x,1.00)", "(,)", "(x,)", '("",1.0)', "(x,-1.0)"),
    _picked("pair[]", '{"(x,1.0)"}', '{"(x,1.00)"}', "{}", "{NULL}", '{"(,)"}'),
    _picked("time", "00:00", "24:00", "00:00:00.000001", "12:00"),
    _picked("timetz", "12:00+00", "13:00+01", "12:00:00.000001+00", "12:00+00:00:01"),
    _picked("inet", "10.0.0.1/8", "10.0.0.1/32", "10.0.0.1/9", "::ffff:10.0.0.1", "::1"),
    _picked("cidr", "10.0.0.0/8", "10.0.0.0/9", "::/0", "0.0.0.0/0"),
    _picked("json", '{"a":1}', '{"a": 1}', '{"a":1,"a":1}', "1", "1.0"),
    _picked("jsonb", "1", "-1", "1.0", '"1"', "[1]", "[[1],2]", "[[1,2]]", "[1,[2]]", "null", '{"a":null}', "{}", "[]"),
    _picked("jsonpath", "$.a", "$.b", "strict $.a"),
    _picked("tsvector", "a:1", "a:1A", "a:2", "a", "b"),
    _picked("tsquery", "a & b", "a | b", "b & a", "a <-> b", "a:A & b"),
    _picked("bit varying", "", "0", "00", "1", "10", "01"),
    _picked("point", "(0,0)", "(-0,0)", "(0,-0)", "(0,1)"),
    _picked("line", "{1,2,3}", "{1,2,-3}", "{1,2,4}"),
    _picked("lseg", "[(0,0),(1,1)]", "[(1,1),(0,0)]"),
    _picked("box", "(2,2),(1,1)", "(3,3),(1,1)", "(2,2),(1,-0)", "(2,2),(1,0)"),
    _picked("path", "((0,0),(1,1))", "[(0,0),(1,1)]", "((0,0))"),
    _picked("polygon", "((0,0),(1,1))", "((1,1),(0,0))"),
    _picked("circle", "<(0,0),1>", "<(0,-0),1>", "<(0,0),2>"),
    _picked("int4range", "[1,2)", "empty", "[1,3)", "(,2)", "[1,)", "(,)"),
    _picked("numrange", "[1,2]", "[1,2)", "[1.0,2]", "(1,2]", "[-1,2]"),
    _picked("tstzrange", "[2000-01-01,2001-01-01)", "[2000-01-01,2001-01-01]", "[2000-01-01,)"),
    _picked("nummultirange", "{[1,2]}", "{[1.0,2]}", "{[1,2],[3,4]}", "{}"),
    _picked("xml", "<a/>", '<?xml version="1.0"?><a/>', '<?xml version="1.0" encoding="UTF-8"?><a/>', "<a></a>"),
    _picked("xml[]", "{<a/>}", '{"<?xml version=\\"1.0\\" encoding=\\"UTF-8\\"?><a/>"}', "{}"),
    _picked("aclitem", "postgres=r/postgres", "postgres=w/postgres", "=r/postgres"),
    _picked("aclitem[]", "{postgres=r/postgres}", "{postgres=w/postgres}", "{}"),
    _picked("tid", "(0,1)", "(1,0)", "(1,1)"),
    _picked("xid", "1", "2"),
    _picked("cid", "1", "2"),
    _picked("regclass", "pg_class", "pg_type"),
    _picked("oidvector", "1 2", "2 1", "1"),
    _picked("int2vector", "1 2", "2 1", "1"),
    _picked("refcursor", "a", "b"),
    _picked("pg_snapshot", "10:20:", "10:20:11", "10:20:12"),
    _picked("txid_snapshot", "10:20:", "10:20:11"),
)
