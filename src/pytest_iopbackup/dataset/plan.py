"""What each transaction of the workload does, chosen by seed and written down before anything is sent.

Every transaction inserts its audit row first. So writers take their table locks in one order, and whoever wants to
lock all tables can do so without deadlock by beginning with ``identity.audit_log``: a transaction that holds any lock
holds that one, to its end or, prepared, until it is finished by its id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from random import Random
from uuid import UUID, uuid5

from psycopg.types.json import Jsonb

from pytest_iopbackup.dataset import own_tables
from pytest_iopbackup.dataset.change import Change, append, create, delete, update
from pytest_iopbackup.dataset.ending import ENDINGS, Ending
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
        return tuple(effect for change in self.changes for effect in change.effects)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A transaction: what it does, what it undoes before by rolling back to a savepoint, and how it ends."""

    unit: Unit
    undone: Unit | None
    nested: bool
    """Whether all but the audit row is done in a subtransaction, which is released."""
    ending: Ending

    @property
    def commits(self) -> bool:
        """Whether what the unit does stays."""
        return self.ending.commits


class Planner:
    """Plans one client's transactions. The same numbers and the same share give the same plans.

    Where nothing ``prepares``, for the server allows no prepared transactions, those are ended in one phase.
    """

    def __init__(self, seed: int, write: int, client: int, share: Share, *, prepares: bool = True) -> None:
        self._name = f"{seed}/{write}/{client}"
        self._write = write
        self._client = client
        self._share = share
        self._prepares = prepares
        self._rng = Random(self._name)  # noqa: S311 - reproducible, not secret
        self._kinds: tuple[tuple[int, str, Callable[[int, int], list[Change]]], ...] = (
            (50, "login", self._login),
            (38, "profile", self._profile),
            (34, "register", self._register),
            (20, "logout", self._logout),
            (18, "setting", self._setting),
            (14, "rotate", self._rotate),
            (10, "leave", self._leave),
            (4, "avatar", self._avatar),
            (5, "import", self._import),
            (2, "make", self._make),
            (2, "empty", self._empty),
            (2, "alter", self._alter),
            (1, "drop", self._drop),
        )

    def plan(self, number: int) -> Plan:
        """Plan the client's ``number``-th transaction: 8 % roll back to a savepoint, 8 % release one."""
        (ending,) = self._rng.choices(tuple(ENDINGS), tuple(ENDINGS.values()))
        savepoint = self._rng.random()
        undone = self._unit(f"{number}/savepoint", number, DOOMED) if savepoint < 0.08 else None
        return Plan(
            unit=self._unit(f"{number}", number, 1 if ending.commits else DOOMED),
            undone=undone,
            nested=savepoint >= 0.92,
            ending=ending if self._prepares else ending.unprepared,
        )

    def _unit(self, name: str, number: int, step: int) -> Unit:
        """``step`` is what every change adds to its row's version; a new row's was 0."""
        weights = [weight for weight, _, _ in self._kinds]
        ((_, kind, make),) = self._rng.choices(self._kinds, weights)
        changes = make(number, step)
        if not changes:  # the share has no such row, or no table of its own, or as many as it may
            kind = {"import": "make", "empty": "make", "alter": "make", "drop": "make", "make": "drop"}.get(
                kind, "register"
            )
            changes = next(other for _, name, other in self._kinds if name == kind)(number, step)
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

    def _make(self, number: int, step: int) -> list[Change]:
        if len(self._share.own_tables) >= own_tables.MOST_TABLES:
            return []
        table = f"{own_tables.SCHEMA}.import_{self._write}_{self._client}_{number}"
        return own_tables.make(table, self._new_rows(3), step)

    def _import(self, _number: int, step: int) -> list[Change]:
        table = self._own_table()
        return [own_tables.copy(table, self._new_rows(8), step)] if table else []

    def _empty(self, _number: int, step: int) -> list[Change]:
        table = self._own_table()
        if table is None:
            return []
        return own_tables.empty(table, self._share.versions[table], self._new_rows(1)[0], step)

    def _alter(self, number: int, step: int) -> list[Change]:
        table = self._own_table()
        if table is None:
            return []
        return [own_tables.alter(table, self._share.versions[table], f"added_{self._write}_{number}", step)]

    def _drop(self, _number: int, _step: int) -> list[Change]:
        table = self._own_table()
        return [own_tables.drop(table, self._share.versions[table])] if table else []

    def _own_table(self) -> str | None:
        tables = self._share.own_tables
        return self._rng.choice(tables) if tables else None

    def _new_rows(self, count: int) -> list[own_tables.Row]:
        return [(self._new_key(), self._rng.choice(_NAMES)) for _ in range(count)]

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
