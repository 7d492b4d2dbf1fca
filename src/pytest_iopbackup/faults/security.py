"""Rights and keys: whoever takes backups or checks may not come in, or cannot read what is there."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.configuration import Option
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.faults.variables import Variable
from pytest_iopbackup.limits import wait_until


class AccessRejected(Fault):
    """Archiving goes on: the archiver needs no session."""

    name = "access-rejected"
    title = "pg_hba.conf rejects every local session: no backup and no check comes in"
    tags = ("security", "postgresql")
    expected = Expected(signal="postgresql", reason=r"pg_hba\.conf rejects connection")
    writes = False

    def inject(self, site: Site) -> None:
        """Put a rule before all others."""
        site.edit(_rules(site), lambda text: f"local all all reject\n{text}")
        _reload(site)

    def prove(self, site: Site) -> str:
        """Try to come in."""
        return _require_refused(site, "rejects connection")

    def heal(self, site: Site) -> None:
        """Put the rules back."""
        site.put_back(_rules(site))
        _reload(site)
        _await_let_in(site)


def _rules(site: Site) -> Path:
    return site.stack.places.data / "pg_hba.conf"


def _reload(site: Site) -> None:
    site.run("pg_ctl", "reload", "--silent", f"--pgdata={site.stack.places.data}")


def _try(site: Site) -> str:
    """Return why nobody is let in; nothing if they are."""
    tried = site.run("psql", "--no-psqlrc", "--no-password", "--quiet", "--command=SELECT", check=False)
    return " ".join(tried.stderr.split()) if tried.exit_code else ""


def _require_refused(site: Site, words: str) -> str:
    said = _try(site)
    if words not in said:
        raise ProofError(f"psql: {said or 'let in'}")
    return said


def _await_let_in(site: Site) -> None:
    wait_until(lambda: not _try(site), limit=site.limits.command, what="PostgreSQL to let its superuser in")


class RoleCannotLogIn(Fault):
    """As after a change of who may log in, made with the best intentions."""

    name = "role-cannot-log-in"
    title = "The role of backups and checks is not permitted to log in"
    tags = ("security", "postgresql")
    expected = Expected(signal="postgresql", reason=r'role "postgres" is not permitted to log in')
    writes = False

    def inject(self, site: Site) -> None:
        """Take its right, and keep a role that can give it back."""
        site.sql("CREATE ROLE rescue SUPERUSER LOGIN")
        site.sql("ALTER ROLE postgres NOLOGIN")

    def prove(self, site: Site) -> str:
        """Try to come in."""
        return _require_refused(site, "not permitted to log in")

    def heal(self, site: Site) -> None:
        """Give the right back."""
        if _try(site):
            site.run("psql", "--no-psqlrc", "--quiet", "--username=rescue", "--command=ALTER ROLE postgres LOGIN")
        site.sql("DROP ROLE IF EXISTS rescue")


class RoleWithoutRights(Variable):
    """It comes in, but may neither look at the archiver nor take a backup."""

    name = "role-without-rights"
    title = "Backups and checks use a role that lacks the rights for them"
    tags = ("security", "variables")
    wrong: ClassVar = {"PGUSER": "visitor", "PGBACKREST_PG1_USER": "visitor"}
    expected = Expected(signal="archiver", reason=r"permission denied")

    def inject(self, site: Site) -> None:
        """Make the role, and use it."""
        site.sql("CREATE ROLE visitor LOGIN")
        super().inject(site)

    def heal(self, site: Site) -> None:
        """Go back to the superuser."""
        super().heal(site)
        site.sql("DROP ROLE IF EXISTS visitor")


class CipherAdded(Option):
    """Neither WAL nor backups can be read or written: what is there is not encrypted."""

    name = "cipher-added"
    title = "The configuration names an encryption that the repository does not have"
    tags = ("security", "options")
    line = r"\[global\]"
    becomes = "[global]\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=not-the-repository's"
    expected = Expected(signal="repository", reason=r"CryptoError|cipher")
    silent = False


FAULTS: tuple[type[Fault], ...] = (AccessRejected, RoleCannotLogIn, RoleWithoutRights, CipherAdded)
