"""pgBackRest's configuration: an option that is wrong, misspelt or gone, while the programs run on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.common import await_acknowledged, expire_since, labels
from pytest_iopbackup.faults.site import Site


def file(site: Site) -> Path:
    """Return pgBackRest's configuration file."""
    return site.stack.places.configuration / "pgbackrest.conf"


class Option(Fault):
    """One line of pgBackRest's configuration is another; the next command reads it. No check of pgBackRest's minds."""

    tags = ("configuration", "options")
    silent = True
    line: ClassVar[str]
    """A regular expression of the line that is replaced."""
    becomes: ClassVar[str]

    def inject(self, site: Site) -> None:
        """Replace the line."""
        site.edit(file(site), lambda text: re.sub(f"^{self.line}$", self.becomes, text, count=1, flags=re.MULTILINE))

    def prove(self, site: Site) -> str:
        """Read the file."""
        lines = site.script('cat "$1"', file(site)).splitlines()
        wanted = self.becomes.splitlines() or [f"no line {self.line}"]
        there = all(line in lines for line in self.becomes.splitlines())
        if not there or (not self.becomes and any(re.fullmatch(self.line, line) for line in lines)):
            raise ProofError(f"pgbackrest.conf does not say {self.becomes!r}")
        return f"pgbackrest.conf says: {wanted[-1]}"

    def heal(self, site: Site) -> None:
        """Put the file back."""
        site.put_back(file(site))


class RetentionTooShort(Option):
    """Just after a full backup there is no moment before it any more."""

    name = "retention-too-short"
    title = "One full backup is kept: with the next one, every moment before it is gone"
    line, becomes = "repo1-retention-full=.*", "repo1-retention-full=1"
    expected = Expected(
        signal="configuration", reason=r"repo1-retention-full=1 \(count\) lets a restore reach 0 s back"
    )


class RetentionArchiveTooShort(Option):
    """Older backups restore to their own end only."""

    name = "retention-archive-too-short"
    title = "WAL is kept for fewer full backups than there are: no moment after the older ones can be restored"
    line, becomes = "repo1-retention-archive=.*", "repo1-retention-archive=1"
    expected = Expected(signal="configuration", reason=r"WAL is kept for 1 of 2 full backups")


class RetentionArchiveByDifferentials(Option):
    """The next differential backup ends point in time recovery before it: the window is lost at once."""

    name = "retention-archive-by-differentials"
    title = "WAL is kept for the last differential backup only: no moment between two backups can be restored"
    line, becomes = "repo1-retention-archive-type=.*", "repo1-retention-archive-type=diff"
    expected = Expected(signal="configuration", reason=r"WAL is kept for 2 diff backups only")
    loses_window = True


class RetentionUnset(Option):
    """Every backup is kept, until the repository is full."""

    name = "retention-unset"
    title = "No number of full backups to keep is set: nothing expires until the repository is full"
    line, becomes = "repo1-retention-full=.*", ""
    expected = Expected(signal="configuration", reason=r"repo1-retention-full is not set")


class OptionMisspelt(Option):
    """pgBackRest warns of it, and goes on without."""

    name = "option-misspelt"
    title = "An option's name is misspelt: pgBackRest only warns, and does as if it were not there"
    line, becomes = "repo1-retention-diff=24", "repo1-retention-dif=24"
    expected = Expected(signal="configuration", reason=r"invalid option 'repo1-retention-dif'")


class WorthlessBackups(Option):
    """Backups taken meanwhile cannot be relied on, and nothing tells them from others: whoever heals removes them."""

    before: list[str] | None = None

    def inject(self, site: Site) -> None:
        """Replace the line, and remember what backups there are."""
        self.before = labels(site)
        super().inject(site)

    def heal(self, site: Site) -> None:
        """Put the file back, and let go of later backups."""
        super().heal(site)
        expire_since(site, self.before)


class ArchiveCheckOff(WorthlessBackups):
    """A backup that cannot be restored is reported as a success."""

    name = "archive-check-off"
    title = "Backups do not wait for the WAL that makes them consistent"
    line, becomes = "archive-check=y", "archive-check=n"
    expected = Expected(signal="configuration", reason=r"archive-check=n")


class ChecksumPageOff(WorthlessBackups):
    """Damage in the database goes from backup to backup."""

    name = "checksum-page-off"
    title = "Backups do not verify the checksums of pages"
    line, becomes = "checksum-page=y", "checksum-page=n"
    expected = Expected(signal="configuration", reason=r"checksum-page=n")


class HeaderCheckOff(Option):
    """The WAL of another cluster is taken for this one's."""

    name = "archive-header-check-off"
    title = "archive-push does not compare the cluster in a segment's header with the stanza's"
    line, becomes = r"\[global:archive-push\]", "[global:archive-push]\narchive-header-check=n"
    expected = Expected(signal="configuration", reason=r"archive-header-check=n")


class ExpireAutoOff(Option):
    """Whoever runs pgBackRest itself, without backup.sh, fills the repository."""

    name = "expire-auto-off"
    title = "Nothing expires after a backup"
    line, becomes = "archive-check=y", "archive-check=y\nexpire-auto=n"
    expected = Expected(signal="configuration", reason=r"expire-auto=n")


class FilesExcluded(WorthlessBackups):
    """It restores without complaint, to something that is not the database."""

    name = "files-excluded"
    title = "Files of a database are excluded from backups"
    line, becomes = "archive-check=y", "archive-check=y\nexclude=base/1/"
    expected = Expected(signal="configuration", reason=r"exclude is set: backups are not whole")


class QueueMaxSet(Option):
    """Nothing has been dropped yet."""

    name = "queue-max-set"
    title = "archive-push-queue-max is set: when the repository fails, WAL will be dropped with success"
    line, becomes = r"\[global:archive-push\]", "[global:archive-push]\narchive-push-queue-max=1GB"
    expected = Expected(signal="configuration", reason=r"archive-push-queue-max may drop WAL")


class ConfigurationMissing(Option):
    """All of pgBackRest's commands fail, those that PostgreSQL calls, too."""

    name = "configuration-missing"
    title = "pgBackRest's configuration file is gone"
    silent = False
    expected = Expected(signal="configuration", reason=r"\[055\]")

    def inject(self, site: Site) -> None:
        """Save it, then delete it."""
        site.keep(file(site))
        site.surgery("rm", "-f", str(file(site)))

    def prove(self, site: Site) -> str:
        """See that it is gone."""
        if site.exists(file(site)):
            raise ProofError("pgbackrest.conf is there")
        return "there is no pgbackrest.conf"


class ArchiveConfigurationElsewhere(Fault):
    """They agree until one of them is changed."""

    name = "archive-configuration-elsewhere"
    title = "archive_command reads a configuration file of its own, which nobody keeps in step"
    tags = ("configuration", "archive-command")
    expected = Expected(signal="configuration", reason=r"its config is \S+old\.conf, backups use")
    silent = True

    def inject(self, site: Site) -> None:
        """Copy the file, and name the copy."""
        copy = file(site).with_name("old.conf")
        site.surgery("cp", "-a", str(file(site)), str(copy))
        command = f'pgbackrest --stanza="${{PGBACKREST_STANZA:-iop}}" --config={copy} archive-push "%p"'
        site.set("archive_command", command)

    def prove(self, site: Site) -> str:
        """Read the running setting."""
        found = site.setting("archive_command")
        if "old.conf" not in found:
            raise ProofError(f"archive_command is {found!r}")
        return f"archive_command is {found!r}"

    def heal(self, site: Site) -> None:
        """Go back to what postgresql.conf says."""
        site.set("archive_command", None)
        await_acknowledged(site, site.switch_wal())
        site.surgery("rm", "-f", str(file(site).with_name("old.conf")))


FAULTS: tuple[type[Fault], ...] = (
    RetentionTooShort,
    RetentionArchiveTooShort,
    RetentionArchiveByDifferentials,
    RetentionUnset,
    OptionMisspelt,
    ArchiveCheckOff,
    ChecksumPageOff,
    HeaderCheckOff,
    ExpireAutoOff,
    FilesExcluded,
    QueueMaxSet,
    ConfigurationMissing,
    ArchiveConfigurationElsewhere,
)
