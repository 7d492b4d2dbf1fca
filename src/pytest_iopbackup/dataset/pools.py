"""Values made once by Faker, already encoded for COPY, from which rows are combined.

A Faker call takes 1 to 30 µs and a row needs a dozen values; picking from a pool takes a tenth of a microsecond. What
:func:`make_pools` returns depends on its seed and Faker's version alone: not on Python's version, PYTHONHASHSEED or TZ.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from pytest_iopbackup.dataset import copytext

if TYPE_CHECKING:
    from faker import Faker

Pool = tuple[str, ...]

LOCALES = ("en_US", "de_DE", "pl_PL", "el_GR", "ru_RU", "ar_SA", "he_IL", "hi_IN", "ja_JP", "zh_CN")

_PROVIDERS = ("person", "company", "job", "address", "phone_number", "lorem", "user_agent", "date_time")
"""Making a Faker with all of its providers would take three times as long."""

AWKWARD = (
    "",
    " ",
    "\\N",
    "\\.",
    "NULL",
    "tab\there, line\nbreak, carriage\rreturn, back\\slash",
    "\"double\" 'single' $dollar$ {brace} %s",
    "\u00e9t\u00e9 e\u0301te\u0301",  # the same letters composed and decomposed: equal to the eye, not to a digest
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f",
    "\u202eright to left\u202c \u00a0\ufeff",
)

_NUMBERS = (
    "0",
    "0.0",
    "0.00",
    "1",
    "1.0",
    "1.00",
    "1e-20",
    "2e-20",
    "9007199254740993",
    "12345678901234567890.123456789",
)
"""Numeric values that are equal but not identical, or that a double cannot tell apart."""


@dataclass(frozen=True, slots=True)
class Person:
    """A name as it is usual in a locale; the family name may be NULL."""

    given_name: str
    family_name: str
    locale: str


@dataclass(frozen=True, slots=True)
class Pools:
    """Fields to pick from."""

    people: tuple[Person, ...]
    handles: Pool
    companies: Pool
    phones: Pool
    """Arrays of none to three numbers."""
    profiles: Pool
    biographies: Pool
    """Each about 1 to 50 kB, compressible: some kept in the page, some out of line."""
    avatars: Pool
    """Each 3 to 30 kB of noise: always out of line."""
    user_agents: Pool
    addresses: Pool
    networks: Pool
    quotas: Pool
    sentences: Pool


def make_pools(seed: int) -> Pools:
    """Make all pools."""
    from faker import Faker  # noqa: PLC0415 - costs 50 ms, wanted only where rows are made

    fake = Faker(list(LOCALES), providers=[f"faker.providers.{name}" for name in _PROVIDERS], use_weighting=False)
    fake.seed_instance(seed)
    rng = Random(f"{seed}/pools")  # noqa: S311 - reproducible, not secret
    sentences = AWKWARD + tuple(fake[locale].paragraph(nb_sentences=4) for locale in LOCALES for _ in range(6))
    return Pools(
        people=_people(fake, rng),
        handles=tuple(_handle(rng) for _ in range(200)),
        companies=tuple(copytext.text(fake[locale].company()) for locale in LOCALES for _ in range(20)),
        phones=tuple(
            copytext.array([fake[locale].phone_number() for _ in range(count)])
            for locale in LOCALES
            for count in (0, 1, 1, 2, 3)
        ),
        profiles=tuple(copytext.document(_profile(fake, locale, rng)) for locale in LOCALES for _ in range(30)),
        biographies=tuple(
            copytext.text("\n".join(rng.choices(sentences, k=k))) for k in (8, 20, 40, 80, 160, 320, 600)
        ),
        avatars=tuple(copytext.binary(rng.randbytes(3_000 * factor)) for factor in range(1, 11)),
        user_agents=tuple(copytext.text(fake["en_US"].user_agent()) for _ in range(100)),
        addresses=tuple(_address(rng) for _ in range(1000)),
        networks=(copytext.NULL, *(f"10.{rng.getrandbits(8)}.0.0/16" for _ in range(20)), "2001:db8::/32"),
        quotas=(copytext.NULL, *_NUMBERS, *(f"{rng.getrandbits(40)}.{rng.getrandbits(20)}" for _ in range(200))),
        sentences=tuple(map(copytext.text, sentences)),
    )


def _people(fake: Faker, rng: Random) -> tuple[Person, ...]:
    people = []
    for locale in LOCALES:
        given = [fake[locale].first_name() for _ in range(60)]
        family = [fake[locale].last_name() for _ in range(60)]
        for _ in range(400):
            last = rng.choice(family) if rng.random() < 0.98 else None
            people.append(Person(copytext.text(rng.choice(given)), copytext.text(last), locale))
    return tuple(people)


def _handle(rng: Random) -> str:
    """Begin an e-mail address: letters in any case, no digit, so that a number behind it makes it unique."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ\u00e4\u00d6\u00df\u00f1\u0141"
    return "".join(rng.choices(letters, k=3 + rng.getrandbits(3)))


def _profile(fake: Faker, locale: str, rng: Random) -> dict[str, object]:
    """Nested, with JSON values that compare equal in SQL and are not the same: 1 and 1.0, [] and null."""
    return {
        "company": fake[locale].company(),
        "job": fake[locale].job(),
        "city": fake[locale].city(),
        "score": rng.choice((0, 1, 1.0, -1, 0.1, None)),
        "flags": rng.choice(([], [[1], 2], [[1, 2]], {}, None)),
        "theme": {"dark": rng.random() < 0.5, "density": rng.choice(("compact", "comfortable"))},
    }


def _address(rng: Random) -> str:
    """Make an inet in a range for documentation (RFC 5737, RFC 3849) or a private one, some with a netmask."""
    host = rng.getrandbits(16)
    return rng.choice(
        (
            f"192.0.2.{host & 255}",
            f"10.{host >> 8}.{host & 255}.7",
            f"10.{host >> 8}.{host & 255}.7/16",
            f"2001:db8::{host:x}",
            f"2001:db8:{host:x}::1/64",
        )
    )
