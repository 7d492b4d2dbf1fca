"""What each transaction of the workload does, chosen by seed and written down before anything is sent.

Every transaction inserts its audit row first. So writers take their table locks in one order, and whoever wants to
lock all tables can do so without deadlock by beginning with ``identity.audit_log``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from random import Random
from uuid import UUID, uuid5

from psycopg.types.json import Jsonb

from pytest_iopbackup.dataset.change import Change, append, create, delete, update
from pytest_iopbackup.dataset.ledger import Effect
from pytest_iopbackup.dataset.share import Share

DOOMED = 1_000_000_000
"""Added to the version of a row by a change that will be rolled back: a version above this proves that it was not."""

_NAMESPACE = UUID("6c9a4f0e-8f0b-4e6e-9d6b-0a5f4b1f7a11")

_FIRST_DAY = datetime(2025, 6, 1, tzinfo=timezone.utc)
"""The workload's own calendar, a day per write: first in the last monthly partition, then in the default one."""

_NAMES = ("Zoë", "Łukasz", "Ελένη", "Фёдор", "نور", "נועה", "अनिता", "さくら", "王芳", "O'Neil")
_ADDRESSES = ("192.0.2.44", "198.51.100.1/24", "2001:db8::44", "10.0.0.1/8")
_VALUES = (True, None, 0, 1.0, "Größe", [1, [2.0]], {"seconds": 900})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Changes that stay or go together; the first is the audit row that carries the request id."""

    request_id: str
    kind: str
    changes: tuple[Change, ...]

    @property
    def effects(self) -> tuple[Effect, ...]:
        """What the changes leave behind, if they stay."""
        return tuple(change.effect for change in self.changes if change.effect)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A transaction: what it does, what it undoes before by rolling back to a savepoint, and how it ends."""

    unit: Unit
    undone: Unit | None
    commits: bool


class Planner:
    """Plans one client's transactions. The same numbers and the same share give the same plans."""

    def __init__(self, seed: int, write: int, client: int, share: Share) -> None:
        self._name = f"{seed}/{write}/{client}"
        self._write = write
        self._client = client
        self._share = share
        self._rng = Random(self._name)  # noqa: S311 - reproducible, not secret
        self._kinds: tuple[tuple[int, str, Callable[[int, int], list[Change]]], ...] = (
            (26, "login", self._login),
            (20, "profile", self._profile),
            (18, "register", self._register),
            (10, "logout", self._logout),
            (10, "setting", self._setting),
            (8, "rotate", self._rotate),
            (6, "leave", self._leave),
            (2, "avatar", self._avatar),
        )

    def plan(self, number: int) -> Plan:
        """Plan the client's ``number``-th transaction: 8 % are rolled back, 8 % roll back to a savepoint."""
        ending = self._rng.random()
        undone = self._unit(f"{number}/savepoint", number, DOOMED) if ending < 0.08 else None
        commits = ending < 0.92
        return Plan(unit=self._unit(f"{number}", number, 1 if commits else DOOMED), undone=undone, commits=commits)

    def _unit(self, name: str, number: int, step: int) -> Unit:
        """``step`` is what every change adds to its row's version; a new row's was 0."""
        weights = [weight for weight, _, _ in self._kinds]
        ((_, kind, make),) = self._rng.choices(self._kinds, weights)
        changes = make(number, step)
        if not changes:  # the share has no such row
            kind, changes = "register", self._register(number, step)
        request_id = str(uuid5(_NAMESPACE, f"{self._name}/{name}"))
        audit = append(
            "identity.audit_log",
            occurred_at=self._moment(number),
            request_id=request_id,
            action=f"workload.{kind}",
            address=self._rng.choice(_ADDRESSES),
            detail=Jsonb({"write": self._write, "client": self._client, "transaction": name, "stays": step != DOOMED}),
        )
        return Unit(request_id=request_id, kind=kind, changes=(audit, *changes))

    def _register(self, number: int, step: int) -> list[Change]:
        user = self._new_key()
        created = self._moment(number)
        changes = [
            create(
                "identity.users",
                user,
                step,
                email=f"{user}@Workload.example",
                given_name=self._rng.choice(_NAMES),
                family_name=self._rng.choice((*_NAMES, None)),
                locale="en_US",
                phones=["+49 30 23125 0", None],
                quota=f"{self._rng.getrandbits(70)}.{self._rng.getrandbits(30)}",
                created_at=created,
            ),
            create(
                "identity.credentials",
                self._new_key(),
                step,
                user_id=user,
                kind="password",
                salt=self._rng.randbytes(16),
                secret=self._rng.randbytes(32),
                parameters=Jsonb({"algorithm": "argon2id"}),
                changed_at=created,
            ),
        ]
        if self._share.groups:
            group = self._rng.choice(self._share.groups)
            changes.append(
                create(
                    "identity.membership",
                    self._new_key(),
                    step,
                    user_id=user,
                    group_id=group,
                    role="member",
                    granted_at=created,
                )
            )
        return changes

    def _login(self, number: int, step: int) -> list[Change]:
        user = self._share.pick(self._rng, "identity.users")
        if user is None:
            return []
        started = self._moment(number)
        attempt = append(
            "identity.login_attempts",
            occurred_at=started,
            email=f"{user[0]}@Workload.example",
            address=self._rng.choice(_ADDRESSES),
            user_agent=None,
            succeeded=True,
        )
        session = create(
            "identity.sessions",
            self._new_key(),
            step,
            user_id=user[0],
            token_hash=self._rng.randbytes(32),
            address=self._rng.choice(_ADDRESSES),
            user_agent="workload/1.0 (n\u00e4chtlich)",
            scopes=["openid", 'with "quotes", and comma'],
            risk=f"0.{self._rng.getrandbits(13):04}",
            started_at=started,
            expires_at=started + timedelta(hours=8),
        )
        return [attempt, session]

    def _profile(self, number: int, step: int) -> list[Change]:
        return self._updated(
            "identity.users",
            step,
            given_name=self._rng.choice(_NAMES),
            profile=Jsonb({"note": self._rng.choice(_NAMES), "value": self._rng.choice(_VALUES)}),
            verified_at=self._moment(number),
        )

    def _avatar(self, _number: int, step: int) -> list[Change]:
        """Write 20 to 84 kB of noise, which PostgreSQL keeps out of line."""
        return self._updated("identity.users", step, avatar=self._rng.randbytes(20_000 + self._rng.getrandbits(16)))

    def _rotate(self, number: int, step: int) -> list[Change]:
        return self._updated(
            "identity.credentials", step, secret=self._rng.randbytes(32), changed_at=self._moment(number)
        )

    def _setting(self, number: int, step: int) -> list[Change]:
        value = Jsonb(self._rng.choice(_VALUES))
        return self._updated("identity.settings", step, value=value, changed_at=self._moment(number))

    def _logout(self, _number: int, _step: int) -> list[Change]:
        return self._deleted("identity.sessions")

    def _leave(self, _number: int, _step: int) -> list[Change]:
        return self._deleted("identity.membership")

    def _updated(self, table: str, step: int, **values: object) -> list[Change]:
        row = self._share.pick(self._rng, table)
        if row is None:
            return []
        key, version = row
        return [update(table, key, version, step, **values)]

    def _deleted(self, table: str) -> list[Change]:
        row = self._share.pick(self._rng, table)
        return [delete(table, *row)] if row else []

    def _moment(self, number: int) -> datetime:
        return _FIRST_DAY + timedelta(days=self._write, seconds=number)

    def _new_key(self) -> str:
        return str(UUID(int=self._rng.getrandbits(128), version=4))
