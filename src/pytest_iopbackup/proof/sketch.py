"""An invertible Bloom lookup table of a table's rows: small, and yet it names the rows that differ.

Each row is put into one cell of each of three subtables, chosen by its own hash. A cell adds up what is in it: how many
rows, a word of the row's hash, and more words (key, hashes of columns). Of two sketches that are subtracted only the
rows that differ remain; a cell with a single one shows it, it is taken out of its three cells, and others become
single (Eppstein, Goodrich, Uyeda, Varghese: "What's the Difference?", SIGCOMM 2011). Up to 0.81 rows a cell this ends
with nothing left, almost surely; what is left over otherwise is said, never guessed.

The word of a row checks itself: its upper 30 bits are a hash of the lower 34, from which the cells follow. Sums that
only look like one row pass with a chance of 2**-30, times that of fitting the cell's place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

SUBTABLES = 3
SLICE = 11
LARGEST = 1 << SLICE
"""Most cells of a subtable."""

ID_BITS = SUBTABLES * SLICE + 1
ID_MASK = (1 << ID_BITS) - 1
CHECK = 0x5BD1E995
"""The number that is hashed with a row's id as the seed."""

_WORD = (1 << 64) - 1
_HALF = (1 << 32) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a sketch is laid out; two can be subtracted if theirs are equal."""

    sizes: tuple[int, ...]
    """Cells of each subtable, powers of two."""
    widths: tuple[int, ...]
    """Bytes of each number in a cell: the count, the row's word, and the words beside them."""
    additive: bool
    """Whether words are added: rows may be there several times. Otherwise xor, which is faster."""

    @property
    def cells(self) -> int:
        """Cells in all subtables."""
        return sum(self.sizes)

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        return self.cells * sum(self.widths)

    def places(self, row: int) -> tuple[int, ...]:
        """Return the cells of a row, by its word."""
        first, second, third = self.sizes
        return (
            row & first - 1,
            first + (row >> SLICE & second - 1),
            first + second + (row >> 2 * SLICE & third - 1),
        )


Cell = list[int]
"""Count, the row's word, and the words beside it."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """The rows of one table. ``content`` is its cells, one after the other, each of numbers of the shape's widths."""

    shape: Shape
    content: bytes

    @staticmethod
    def of(shape: Shape, filled: Iterable[tuple[int, bytes]] = ()) -> Sketch:
        """Return a sketch with these cells, each with its place; all others are empty."""
        content, width = bytearray(shape.bytes), sum(shape.widths)
        for place, cell in filled:
            content[place * width : (place + 1) * width] = cell
        return Sketch(shape, bytes(content))

    def cells(self) -> list[Cell]:
        """Return the cells as numbers, without sign."""
        numbers, width = iter(cut(self.content, self.shape.widths)), len(self.shape.widths)
        return [list(islice(numbers, width)) for _ in range(self.shape.cells)]

    @property
    def rows(self) -> int:
        """How many rows are in it."""
        width, first = sum(self.shape.widths), self.shape.widths[0]
        return sum(
            int.from_bytes(self.content[start : start + first], "big")
            for start in range(0, self.shape.sizes[0] * width, width)
        )

    def plus(self, other: Sketch) -> Sketch:
        """Return the sketch of the rows of both."""
        shape, pairs = self.shape, zip(self.cells(), other.cells(), strict=True)
        added = (
            [a + b if shape.additive or not n else a ^ b for n, (a, b) in enumerate(zip(one, two, strict=True))]
            for one, two in pairs
        )
        return Sketch(shape, b"".join(cell_bytes(cell, shape.widths) for cell in added))

    def dump(self) -> bytes:
        """Return it as bytes; compressing random numbers would cost more than all else on the client."""
        return self.content

    @staticmethod
    def load(shape: Shape, dumped: bytes) -> Sketch:
        """Read it back; ValueError if it is none of this shape."""
        if len(dumped) != shape.bytes:
            raise ValueError(f"{len(dumped)} bytes instead of {shape.bytes}")
        return Sketch(shape, dumped)


def cell_bytes(numbers: Iterable[int], widths: Sequence[int]) -> bytes:
    """Return a cell's numbers as bytes, each modulo its width."""
    return b"".join(
        (number % (1 << 8 * width)).to_bytes(width, "big") for number, width in zip(numbers, widths, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """A row that is on one side more often: ``count`` times, negative if on the second side."""

    count: int
    row: int
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Peeled:
    """What could be taken out of a difference."""

    entries: tuple[Entry, ...]
    left: int
    """Cells that are not empty: then there are more rows than ``entries``."""

    @property
    def least(self) -> int:
        """How many rows differ at least: each that is left fills three cells at most."""
        return len(self.entries) + -(-self.left // SUBTABLES)


def row_word(row_hash: int) -> int:
    """Return a row's word, 64 bits without sign; the same as the SQL in ``sketching``."""
    number = row_hash & ID_MASK
    return number | hash_uint32(CHECK, number) & ~ID_MASK


def peel(first: Sketch, second: Sketch) -> Peeled:
    """Name the rows that are in only one of two sketches of the same shape, with multiplicity. Always ends."""
    shape = first.shape
    if second.shape != shape:
        raise ValueError(f"sketches of two shapes cannot be subtracted: {shape}, {second.shape}")
    moduli = [1 << 8 * width for width in shape.widths]
    cells = [
        [_plus(a, -b if shape.additive or not n else b, m, xor=not shape.additive and n > 0)
         for n, (a, b, m) in enumerate(zip(one, other, moduli, strict=True))]
        for one, other in zip(first.cells(), second.cells(), strict=True)
    ]  # fmt: skip
    found: dict[int, Entry] = {}
    waiting = [place for place, cell in enumerate(cells) if any(cell)]
    nonempty = len(waiting)
    while waiting:
        place = waiting.pop()
        entry = _single(shape, place, cells[place], moduli)
        if entry is None:
            continue
        if entry.row in found:  # what was taken out has come back: something was no row after all
            return Peeled((), nonempty)
        found[entry.row] = entry
        row = _signed(entry.row, 1 << 64) if shape.additive else entry.row
        values = (row, *entry.words)
        for other in shape.places(entry.row):
            cell = cells[other]
            cell[0] = _plus(cell[0], -entry.count, moduli[0])
            for number, value in enumerate(values, 1):
                step = -entry.count * value if shape.additive else value
                cell[number] = _plus(cell[number], step, moduli[number], xor=not shape.additive)
            waiting.append(other)
        if len(found) > shape.cells:  # each row empties a cell for good: more cannot be
            return Peeled((), nonempty)
    return Peeled(tuple(found.values()), sum(any(cell) for cell in cells))


def _single(shape: Shape, place: int, cell: Cell, moduli: Sequence[int]) -> Entry | None:
    """Return the row of a cell that holds a single one (however often, if additive)."""
    count = _signed(cell[0], moduli[0])
    if count == 0 or (not shape.additive and abs(count) != 1):
        return None
    values = cell[1:]
    if shape.additive:
        signed = [_signed(value, modulus) for value, modulus in zip(values, moduli[1:], strict=True)]
        if any(value % count for value in signed):
            return None
        values = [value // count for value in signed]
        if not -(1 << 63) <= values[0] < 1 << 63:
            return None
    row = values[0] & _WORD  # SQL adds it up with its sign
    if place not in shape.places(row) or row_word(row) != row:
        return None
    return Entry(count, row, tuple(values[1:]))


def _plus(number: int, step: int, modulus: int, *, xor: bool = False) -> int:
    return number ^ step if xor else (number + step) % modulus


def _signed(number: int, modulus: int) -> int:
    return number - modulus if number * 2 >= modulus else number


def cut(raw: bytes, widths: Sequence[int]) -> Iterator[int]:
    """Yield the numbers of which bytes consist, again and again of these widths."""
    start = 0
    while start < len(raw):
        for width in widths:
            yield int.from_bytes(raw[start : start + width], "big")
            start += width


def hash_uint32(number: int, seed: int) -> int:
    """Return what ``hashint4extended(number, seed)`` does: 64 bits without sign; ``number`` and ``seed`` not negative.

    Bob Jenkins' lookup3 for one word, as in PostgreSQL's ``common/hashfn.c``, ``hash_bytes_uint32_extended``.
    """
    a = b = c = (0x9E3779B9 + 4 + 3923095) & _HALF
    if seed:
        a, b = (a + (seed >> 32)) & _HALF, (b + (seed & _HALF)) & _HALF
        for shift_c, shift_a, shift_b in ((4, 6, 8), (16, 19, 4)):
            a = (a - c & _HALF) ^ _rotated(c, shift_c)
            c = c + b & _HALF
            b = (b - a & _HALF) ^ _rotated(a, shift_a)
            a = a + c & _HALF
            c = (c - b & _HALF) ^ _rotated(b, shift_b)
            b = b + a & _HALF
    a = a + number & _HALF
    c = (c ^ b) - _rotated(b, 14) & _HALF
    a = (a ^ c) - _rotated(c, 11) & _HALF
    b = (b ^ a) - _rotated(a, 25) & _HALF
    c = (c ^ b) - _rotated(b, 16) & _HALF
    a = (a ^ c) - _rotated(c, 4) & _HALF
    b = (b ^ a) - _rotated(a, 14) & _HALF
    c = (c ^ b) - _rotated(b, 24) & _HALF
    return b << 32 | c


def _rotated(number: int, bits: int) -> int:
    return (number << bits | number >> 32 - bits) & _HALF
