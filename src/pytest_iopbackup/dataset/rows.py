"""Each table's rows, as columns: which values, how often NULL, who refers to whom.

Every table has a method of :class:`Rows`, which takes a :class:`Draw` for the rows wanted and returns columns by name.
Timestamps lie in 2024 to 2026, whenever the rows are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256

from pytest_iopbackup.dataset.copytext import NULL, binary
from pytest_iopbackup.dataset.draw import Draw, days
from pytest_iopbackup.dataset.pools import Pool, Pools

Columns = dict[str, list[str]]

_STATUSES = ("active",) * 17 + ("invited", "suspended", "closed")
_ROLES = ("member",) * 7 + ("guest", "maintainer", "owner")
_CREDENTIALS = (
    ("password", '{"algorithm": "argon2id", "memory": 65536}'),
    ("totp", '{"digits": 6, "period": 30.0}'),
)
_SCOPES = ("{}", "{openid}", '{openid,profile,"e-mail"}', "{openid,offline_access}")
_TAGS = ("{}", "{internal}", "{internal,NULL}", '{"a, b","{}",\u00fc,""}')
_ACTIONS = ("login", "logout", "profile.update", "member.add", "member.remove", "password.change", "token.refresh")
_DETAILS = (NULL, "{}", '{"result": "ok"}', '{"result": "denied", "reason": "policy", "attempt": 3}')
_VALUES = (
    "true",
    "false",
    "null",
    "0",
    "1.0",
    '"\u00e4"',
    '["a", 1, null]',
    '{"seconds": 3600, "nested": {"on": true}}',
)
_DOMAINS = ("example.com", "Example.ORG", "mail.example.net", "b\u00fccher.example")

_PAST = days(date(2025, 1, 1), 181)
_FUTURE = days(date(2025, 7, 1), 365)
_AUDITED = days(date(2024, 12, 21), 192)
"""Some days lie before the first monthly partition."""


@dataclass(frozen=True, slots=True)
class LargeObject:
    """A large object that a row of ``identity.documents`` refers to."""

    oid: int
    content: bytes


class Rows:
    """The rows of a dataset of so many users and groups."""

    def __init__(self, seed: int, users: int, groups: int, pools: Pools, documents: Sequence[LargeObject]) -> None:
        self._groups = groups
        self._pools = pools
        self._documents = documents
        self._user_ids = Draw(f"{seed}/user ids", range(users)).uuids()

    def users(self, draw: Draw) -> Columns:
        """Give every 256th a long biography, every 200th an avatar: both are too big for a page."""
        people = draw.pick(self._pools.people)
        handles = zip(draw.pick(self._pools.handles), draw.numbers, draw.pick(_DOMAINS), strict=True)
        return {
            "id": self._in_turn(draw.numbers),
            "number": [str(number + 1) for number in draw.numbers],
            "email": [f"{handle}.{number}@{domain}" for handle, number, domain in handles],
            "given_name": [person.given_name for person in people],
            "family_name": [person.family_name for person in people],
            "locale": [person.locale for person in people],
            "status": draw.pick(_STATUSES),
            "phones": draw.pick(self._pools.phones),
            "quota": draw.pick(self._pools.quotas),
            "profile": draw.pick(self._pools.profiles),
            "biography": _every(
                256, draw.numbers, self._pools.biographies, draw.fields(self._pools.sentences, nulls=40)
            ),
            "avatar": _every(200, draw.numbers, self._pools.avatars, [NULL] * draw.rows),
            "manager_id": draw.fields(self._user_ids, nulls=60),
            "last_address": draw.fields(self._pools.addresses, nulls=20),
            "created_at": draw.moments(_PAST),
            "verified_at": draw.moments(_FUTURE, nulls=30),
        }

    def groups(self, draw: Draw) -> Columns:
        """Make group n a child of group n // 4."""
        return {
            "id": [str(number + 1) for number in draw.numbers],
            "parent_id": [str((number + 1) // 4 or NULL) for number in draw.numbers],
            "slug": [f"Group-{number + 1:05}" for number in draw.numbers],
            "title": draw.pick(self._pools.companies),
            "tags": draw.pick(_TAGS),
            "attributes": draw.pick(_DETAILS),
            "budget": [f"{cents // 100}.{cents % 100:02}" for cents in draw.integers(34)],
            "created_at": draw.moments(_PAST),
        }

    def membership(self, draw: Draw) -> Columns:
        """Put each user into a group, then some into the next group, too."""
        users = len(self._user_ids)
        return {
            "id": draw.uuids(),
            "user_id": self._in_turn(draw.numbers),
            "group_id": [str((number % users * 7919 + number // users) % self._groups + 1) for number in draw.numbers],
            "role": draw.pick(_ROLES),
            "granted_at": draw.moments(_PAST),
            "expires_at": draw.moments(_FUTURE, nulls=80),
        }

    def credentials(self, draw: Draw) -> Columns:
        """Give each user a password, then some a second factor."""
        kinds = [_CREDENTIALS[number // len(self._user_ids)] for number in draw.numbers]
        return {
            "id": draw.uuids(),
            "user_id": self._in_turn(draw.numbers),
            "kind": [kind for kind, _ in kinds],
            "salt": draw.binaries(16),
            "secret": draw.binaries(32),
            "parameters": [parameters for _, parameters in kinds],
            "changed_at": draw.moments(_PAST),
        }

    def sessions(self, draw: Draw) -> Columns:
        """Give some users one session, some several, some none."""
        return {
            "id": draw.uuids(),
            "user_id": draw.pick(self._user_ids),
            "token_hash": draw.binaries(32),
            "address": draw.pick(self._pools.addresses),
            "network": draw.pick(self._pools.networks),
            "user_agent": draw.pick(self._pools.user_agents),
            "scopes": draw.pick(_SCOPES),
            "risk": [f"0.{number % 10_000:04}" for number in draw.integers(16)],
            "started_at": draw.moments(_PAST),
            "expires_at": draw.moments(_FUTURE),
        }

    def audit_log(self, draw: Draw) -> Columns:
        """Fill every partition; some rows precede the first month and go to the default one."""
        return {
            "occurred_at": draw.moments(_AUDITED),
            "id": [str(number + 1) for number in draw.numbers],
            "request_id": draw.uuids(),
            "actor_id": draw.fields(self._user_ids, nulls=5),
            "action": draw.pick(_ACTIONS),
            "address": draw.fields(self._pools.addresses, nulls=10),
            "detail": draw.pick(_DETAILS),
        }

    def settings(self, draw: Draw) -> Columns:
        """Set options of all JSON types."""
        return {
            "key": [f"platform.section_{number % 10}.option_{number}" for number in draw.numbers],
            "value": draw.pick(_VALUES),
            "description": draw.fields(self._pools.sentences, nulls=25),
            "changed_at": draw.moments(_PAST),
        }

    def login_attempts(self, draw: Draw) -> Columns:
        """Repeat every ninth row of ten: the table has no key."""
        handles = zip(draw.pick(self._pools.handles), draw.pick(_DOMAINS), strict=True)
        columns = {
            "occurred_at": draw.moments(_PAST),
            "email": [f"{handle}@{domain}" for handle, domain in handles],
            "address": draw.fields(self._pools.addresses, nulls=5),
            "user_agent": draw.fields(self._pools.user_agents, nulls=10),
            "succeeded": draw.pick(("true", "true", "true", "false")),
        }
        for column in columns.values():
            for at in range(9, draw.rows, 10):
                column[at] = column[at - 1]
        return columns

    def documents(self, draw: Draw) -> Columns:
        """Refer to the large objects, with a hash of what each must hold."""
        contents = [self._documents[number] for number in draw.numbers]
        return {
            "id": [str(number + 1) for number in draw.numbers],
            "user_id": draw.pick(self._user_ids),
            "title": draw.pick(self._pools.companies),
            "content": [str(document.oid) for document in contents],
            "content_sha256": [binary(sha256(document.content).digest()) for document in contents],
        }

    def _in_turn(self, numbers: range) -> list[str]:
        """Take all users in turn, again and again."""
        return [self._user_ids[number % len(self._user_ids)] for number in numbers]


def _every(step: int, numbers: range, pool: Pool, column: list[str]) -> list[str]:
    """Put a rare value into every ``step``-th row, the first one included."""
    for at, number in enumerate(numbers):
        if number % step == 0:
            column[at] = pool[number // step % len(pool)]
    return column
