"""PostgreSQL's settings that a backup system depends on, changed by somebody who had something else in mind."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.common import await_acknowledged
from pytest_iopbackup.faults.loss import WalLevelMinimal
from pytest_iopbackup.faults.site import Site


class Setting(Fault):
    """Settings are others than postgresql.conf demands, and in force."""

    tags = ("postgresql", "configuration")
    values: ClassVar[dict[str, str]]
    """As ``pg_settings`` shows them."""
    restart: ClassVar[bool] = False

    def inject(self, site: Site) -> None:
        """Set them."""
        for name, value in self.values.items():
            site.set(name, value)
        if self.restart:
            site.restart()

    def prove(self, site: Site) -> str:
        """Read what is in force."""
        found = {name: _in_force(site, name) for name in self.values}
        if found != self.values:
            raise ProofError(f"in force: {found}")
        return f"in force: {found}"

    def heal(self, site: Site) -> None:
        """Go back to what postgresql.conf says."""
        site.start()
        for name in self.values:
            site.set(name, None)
        if self.restart and any(_in_force(site, name) == value for name, value in self.values.items()):
            site.restart()


def _in_force(site: Site, name: str) -> str:
    return str(site.sql(f"SELECT setting FROM pg_settings WHERE name = '{name}'")[0][0])


class ArchiveTimeoutLong(Setting):
    """Nothing is wrong but how much a crash may cost."""

    name = "archive-timeout-long"
    title = "archive_timeout was raised: an idle server's commits stay on it for an hour"
    values: ClassVar = {"archive_timeout": "3600"}
    silent = True
    expected = Expected(signal="configuration", reason=r"archive_timeout is 3600, not 60: more can be lost")


class CommitTimesOff(Setting):
    """No restore to a time is refused; nobody can tell which time it should be."""

    name = "commit-times-off"
    title = "track_commit_timestamp is off: nobody knows when a mistake was committed"
    values: ClassVar = {"track_commit_timestamp": "off"}
    restart = True
    silent = True
    writes = False  # the times of these commits would be missed when they are judged
    expected = Expected(signal="configuration", reason=r"track_commit_timestamp is off")


class WalLevelNow(Setting):
    """No WAL is archived, and what is written is not enough for recovery."""

    name = "wal-level-minimal-now"
    title = "wal_level is minimal, as for a bulk load: nothing written now can be recovered"
    tags = ("archiving", "postgresql")
    values: ClassVar = WalLevelMinimal.away
    restart = True
    loses_window = True
    writes = False  # what was written now would be on no record
    expected = Expected(signal="configuration", reason=r"wal_level is minimal")


class FileLines(Fault):
    """postgresql.conf has lines that only the next start will take up, a restored server's first one, too."""

    tags = ("postgresql", "configuration")
    silent = True
    lines: ClassVar[str]

    def inject(self, site: Site) -> None:
        """Add them, and let the server read them."""
        site.keep(_file(site))
        site.script('printf "%s\\n" "$2" >>"$1"', _file(site), self.lines)
        site.sql("SELECT pg_reload_conf()")

    def prove(self, site: Site) -> str:
        """Read the file, and see that the server lives with it."""
        if not site.script('cat "$1"', _file(site)).endswith(f"{self.lines}\n"):
            raise ProofError(f"postgresql.conf does not end with {self.lines!r}")
        return f"postgresql.conf ends with {self.lines!r}; in force: {_in_force(site, self.lines.split()[0])!r}"

    def heal(self, site: Site) -> None:
        """Put the file back."""
        site.put_back(_file(site))
        site.start()
        site.sql("SELECT pg_reload_conf()")


def _file(site: Site) -> Path:
    return site.stack.places.data / "postgresql.conf"


class FileBroken(FileLines):
    """The server logs it once, and runs on with what it had."""

    name = "postgresql-conf-broken"
    title = "postgresql.conf has an error: the server runs on, and will not start again, nor will a restored one"
    lines = "work_mem = '12XB'"
    expected = Expected(
        signal="configuration", reason=r"critical: .*the next start of PostgreSQL will fail: \S+conf:\d+ work_mem"
    )


class RecoveryTargetLeft(FileLines):
    """Left over from somebody's restore by hand; pgBackRest takes out only what it has written itself."""

    name = "recovery-target-left"
    title = "postgresql.conf still has a recovery target: a restore to the latest moment would stop before it, or fail"
    lines = "recovery_target = 'immediate'"
    expected = Expected(
        signal="configuration", reason=r"critical: .*recovery_target is 'immediate': every restore stops"
    )

    def inject(self, site: Site) -> None:
        """Add it, and restart: a server that is not in recovery ignores it."""
        super().inject(site)
        site.restart()

    def heal(self, site: Site) -> None:
        """Put the file back, and restart where it was in force."""
        super().heal(site)
        if _in_force(site, "recovery_target"):
            site.restart()


class RecoveryTimelineLeft(FileLines):
    """Restores go on to the end of that timeline, whatever came later."""

    name = "recovery-timeline-left"
    title = "postgresql.conf names a timeline to recover along: what is written after a later failover is not restored"
    lines = "recovery_target_timeline = '1'"
    expected = Expected(signal="configuration", reason=r"recovery_target_timeline is '1': restores do not follow")


class ArchiveHook(Fault):
    """Pushes succeed so far."""

    name = "archive-hook"
    title = (
        "archive_command is a hook that runs pgBackRest and always ends with 0: a push that fails will count as done"
    )
    tags = ("archiving", "archive-command")
    silent = True
    expected = Expected(
        signal="configuration", reason=r"archive_command is '.*': whose exit code counts is not pgBackRest"
    )

    def inject(self, site: Site) -> None:
        """Make the hook, and let the server run it."""
        site.script('printf "#!/bin/sh\\n%s\\nexit 0\\n" "$2" >"$1"; chmod 755 "$1"', self._path(site), '"$@"')
        stanza = '--stanza="${PGBACKREST_STANZA:-iop}"'
        site.set("archive_command", f'{self._path(site)} pgbackrest {stanza} archive-push "%p"')

    def prove(self, site: Site) -> str:
        """Let it archive a segment."""
        site.await_archived(site.switch_wal())
        return f"archives by {site.setting('archive_command')}"

    def heal(self, site: Site) -> None:
        """Go back to what postgresql.conf says."""
        site.set("archive_command", None)
        await_acknowledged(site, site.switch_wal())
        site.surgery("rm", "-f", str(self._path(site)))

    def _path(self, site: Site) -> Path:
        return site.stack.places.configuration / "push-hook"


class SlotAbandoned(Fault):
    """All of it is archived: nothing else tells until the file system is full."""

    name = "slot-abandoned"
    title = "A replication slot that nobody reads keeps all WAL from now on: pg_wal will fill up"
    tags = ("disk", "postgresql")
    silent = True
    variables: ClassVar = {"IOP_SLOT_LIMIT": "2"}
    expected = Expected(
        signal="space", reason=r"the replication slot gone, which nobody reads, holds back \d+ bytes of WAL"
    )

    def inject(self, site: Site) -> None:
        """Make one, as for a standby that never came, and write more WAL than it may hold."""
        site.sql("SELECT pg_create_physical_replication_slot('gone', true)")
        for _ in range(4):
            site.switch_wal()

    def prove(self, site: Site) -> str:
        """Ask the server what it holds."""
        held = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots"
        rows = site.sql(f"{held} WHERE NOT active")
        if not rows or rows[0][0] <= 2 << 20:
            raise ProofError(f"held back: {rows}")
        return f"{rows[0][0]} bytes of WAL are held back"

    def heal(self, site: Site) -> None:
        """Drop it."""
        site.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'gone'")


FAULTS: tuple[type[Fault], ...] = (
    ArchiveTimeoutLong,
    CommitTimesOff,
    WalLevelNow,
    FileBroken,
    RecoveryTargetLeft,
    RecoveryTimelineLeft,
    ArchiveHook,
    SlotAbandoned,
)
