"""What keeps the check named verify from its work: a run that hangs, one that never ends, a lock."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO, ClassVar

from pytest_iopbackup.errors import ProofError
from pytest_iopbackup.faults import processes
from pytest_iopbackup.faults.base import Expected, Fault
from pytest_iopbackup.faults.damage import BackupFile
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.limits import wait_until
from pytest_iopbackup.stack.base import Service

_PACE = {"IOP_VERIFY_FREQUENCY": "1", "IOP_VERIFY_LIMIT": "5"}

_STOP = """while :; do
    found=$(grep -slzx "[v]erify" /proc/[0-9]*/cmdline | sed s/cmdline/environ/ |
        xargs -r grep -slzxF "IOP_STATE_PATH=$1" | cut -d / -f 3)
    [ "$found" ] || continue
    kill -STOP $found || true
    if ! flock --nonblock "$2" true && sleep 0.1 && ! flock --nonblock "$2" true; then break; fi
    kill -CONT $found || true
done
echo $found"""
"""Stops what verifies with this state directory, once that holds the lock."""


def _lock(site: Site) -> Path:
    return site.stack.places.state / f"verify-{site.stack.stanza}.lock"


class VerifyStopped(Fault):
    """Its lock keeps others from being started."""

    name = "verify-stopped"
    title = "A run of verify hangs for ever: no other one is started"
    tags = ("workers", "verify")
    silent = True
    variables: ClassVar = _PACE
    expected = Expected(signal="verify", reason=r"verify has been running for \d+ s, more than 5", within=20)
    stopped: tuple[int, ...] = ()

    def inject(self, site: Site) -> None:
        """Stop the next run, which is there for moments only, by what it was started with."""
        printed = site.run(
            "sh", "-c", _STOP, "sh", *map(str, (site.stack.places.state, _lock(site))), service=Service.CHECK
        )
        self.stopped = tuple(map(int, printed.stdout.split()))

    def prove(self, site: Site) -> str:
        """See that one holds the lock."""
        holds = site.run("flock", "--nonblock", str(_lock(site)), "true", check=False).exit_code != 0
        states = [site.script('cut -d " " -f 3 "/proc/$1/stat" || true', str(pid)).strip() for pid in self.stopped]
        if not holds or "T" not in states:
            raise ProofError(f"the lock of verify is {'held' if holds else 'free'}, processes are {states}")
        return f"state T: one of {', '.join(map(str, self.stopped))}, which holds the lock of verify"

    def heal(self, site: Site) -> None:
        """Let it go on."""
        processes.send(site, "CONT", *self.stopped, service=Service.CHECK)


class VerifyNeverRuns(Fault):
    """As if every run were killed, or another host's checks shared the state directory."""

    name = "verify-never-runs"
    title = "Something else holds the lock of verify: its last good result stays, and grows old"
    tags = ("workers", "verify")
    silent = True
    variables: ClassVar = _PACE
    expected = Expected(signal="verify", reason=r"the last run ended \d+ s ago", within=20)
    held: IO[bytes] | None = None

    def inject(self, site: Site) -> None:
        """Hold it ourselves: whatever becomes of us, it is free again."""
        self.held = _lock(site).open("rb")

        def taken() -> bool:
            assert self.held is not None
            try:
                fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            return True

        wait_until(taken, limit=site.limits.check, what="verify to be at rest", pause=0.02)

    def prove(self, site: Site) -> str:
        """Try to take it."""
        if site.run("flock", "--nonblock", str(_lock(site)), "true", check=False).exit_code == 0:
            raise ProofError("the lock of verify is free")
        return f"{_lock(site)} is held"

    def heal(self, site: Site) -> None:  # noqa: ARG002 - it is ours
        """Let it go."""
        if self.held:
            self.held.close()


class VerifyLockUnwritable(Fault):
    """What remains when somebody else has run the checks by hand."""

    name = "verify-lock-unwritable"
    title = "The lock of verify belongs to somebody else: verify is not run any more"
    tags = ("permissions", "verify")
    silent = True
    variables: ClassVar = _PACE
    expected = Expected(signal="verify", reason=r"cannot write \S+/verify-\S+\.lock: Permission denied")

    def inject(self, site: Site) -> None:
        """Take all rights away."""
        site.script('chmod 0 "$1"', _lock(site))

    def prove(self, site: Site) -> str:
        """Try to open it."""
        tried = site.run("sh", "-c", ': >>"$1"', "sh", str(_lock(site)), service=Service.CHECK, check=False)
        if tried.exit_code == 0:
            raise ProofError(f"{_lock(site)} can be written")
        return " ".join(tried.stderr.split())

    def heal(self, site: Site) -> None:
        """Give them back."""
        site.script('chmod 644 "$1"', _lock(site))


class BackupFileHangs(BackupFile):
    """What a disk does that tries a bad sector again and again: whoever reads the file waits."""

    name = "backup-file-hangs"
    title = "A file of the newest backup hangs when it is read: verify and restores wait for ever"
    tags = ("repository", "backup-files")
    variables: ClassVar = {"IOP_VERIFY_FREQUENCY": "1", "IOP_VERIFY_LIMIT": "3"}
    expected = Expected(signal="verify", reason=r"verify (did not end within 3 s|hangs)", within=20)

    def inject(self, site: Site) -> None:
        """Put a pipe that nobody writes to in its place."""
        self._files = self.victims(site)
        for path in self._files:
            site.take_away(path)
            site.run("mkfifo", str(path))

    def damage(self, site: Site, path: Path) -> None:
        """Nothing is to be changed."""

    def prove(self, site: Site) -> str:
        """Try to read it."""
        for path in self._files:
            if site.run("timeout", "0.3", "cat", str(path), check=False).exit_code == 124:
                return f"{path}: no answer to a read within 0.3 s"
        raise ProofError("it can be read")

    def heal(self, site: Site) -> None:
        """Put the file back, then let go whoever waits: opened for both ways, a pipe never blocks."""
        for path in self._files:
            pipe = path.with_name(f"{path.name}.pipe")
            site.script('[ ! -p "$1" ] || mv "$1" "$2"', path, pipe)
            site.put_back(path)
            site.script('[ ! -p "$1" ] || { exec 3<>"$1"; exec 3>&-; rm "$1"; }', pipe)


FAULTS: tuple[type[Fault], ...] = (
    VerifyStopped,
    VerifyNeverRuns,
    VerifyLockUnwritable,
    BackupFileHangs,
)
