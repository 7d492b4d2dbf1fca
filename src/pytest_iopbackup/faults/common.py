"""What several faults do, or undo: WAL in two repositories, WAL that is lost, backups that are worth nothing."""

from __future__ import annotations

from pathlib import Path

from pytest_iopbackup.cluster.pgbackrest import json_in
from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until


def await_acknowledged(site: Site, segment: str) -> None:
    """Wait until PostgreSQL believes that a segment is archived."""
    last = "SELECT last_archived_wal FROM pg_stat_archiver"
    wait_until(
        lambda: str(site.sql(last)[0][0] or "") >= segment,
        limit=site.limits.archive,
        what=f"PostgreSQL to call {segment} archived",
    )


def require_lost(site: Site, segment: str) -> str:
    """Return that a segment is not in the repository. Raises ProofError where it is, or still may get there."""
    if site.files(site.archive() / segment[:16], f"{segment}-*"):
        raise ProofError(f"{segment} is in the repository")
    if site.exists(site.stack.places.data / "pg_wal" / "archive_status" / f"{segment}.ready"):
        raise ProofError(f"{segment} is still waiting for the archive")
    return f"{segment} is not in the repository, and PostgreSQL will not archive it"


def create_stanza(site: Site, repository: Path) -> None:
    """Make the stanza in another repository; with a lock of its own, as an archiver at work holds the usual one."""
    lock = f"{repository}.lock"
    site.run("pgbackrest", f"--repo1-path={repository}", f"--lock-path={lock}", "stanza-create")
    site.surgery("rm", "-rf", lock)


def merge_archives(site: Site, other: Path) -> None:
    """Bring WAL that went to another repository, then remove that."""
    finished = '-type f -name "0*-*" ! -name "*.tmp"'
    copy = f'if [ -d "$1" ]; then cd "$1" && find . {finished} -exec cp -an --parents {{}} "$2" \\;; fi'
    inner = Path("archive", site.stack.stanza)
    site.script(copy, other / inner, site.stack.places.repository / inner)
    site.surgery("rm", "-rf", str(other))


def labels(site: Site) -> list[str]:
    """Return the labels of all backups, the damaged ones among them, which :meth:`Site.backups` leaves out."""
    stanzas = json_in(site.run("pgbackrest", "info", "--output=json"))
    return [str(backup["label"]) for stanza in stanzas for backup in stanza["backup"]]


def expire_since(site: Site, before: list[str] | None) -> None:
    """Remove the backups that were taken since, the newest first; ``before`` None: nothing had begun yet."""
    if before is not None:
        for label in reversed(labels(site)):
            if label not in before:
                site.run("pgbackrest", "expire", f"--set={label}")
