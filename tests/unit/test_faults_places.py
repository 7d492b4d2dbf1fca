"""Faults of a stack's places give back exactly what was there: owners, modes, times and content."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_iopbackup.errors import CommandError
from pytest_iopbackup.faults import permissions
from pytest_iopbackup.faults.site import Site
from pytest_iopbackup.faults.volumes import Volume
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.stack.binaries import Binaries
from pytest_iopbackup.stack.host import account
from pytest_iopbackup.stack.local import LocalStack
from pytest_iopbackup.stack.local_services import LocalSettings
from running import mounted

takes_root = pytest.mark.skipif(os.geteuid() != 0, reason="not run: to mount something takes root")
RIGHTS = [fault for fault in permissions.FAULTS if fault is not permissions.BackupOwnedByRoot]  # it asks pgBackRest


@pytest.fixture
def site(base: Path) -> Site:
    """Give a stack that has never run, with some files of unusual modes."""
    stack = LocalStack(base / "s-1", LocalSettings(binaries=Binaries(base, base, base, "", ""), limits=Limits()))
    stack.make_directories()
    places = stack.places
    for path, mode in (
        (places.repository / "archive" / "iop" / "a file\nof two lines", 0o640),
        (places.repository / "backup" / "iop" / "backup.info", 0o604),
        (places.repository / "backup" / "iop" / "backup.info.copy", 0o400),
        (places.spool / "archive" / "iop" / "out" / "x.ok", 0o600),
        (places.configuration / "pgbackrest.conf", 0o440),
        (places.state / "check.json", 0o644),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
        path.chmod(mode)
        os.utime(path, ns=(1, 1_600_000_000_123_456_789))
    for path in stack.directory.rglob("*"):
        account().own(path)
    (places.repository / "archive" / "iop").chmod(0o2750)
    return Site(stack, Limits())


def inventory(site: Site) -> str:
    """Describe everything in the stack's directory."""
    script = """
cd "$1"
find . -mindepth 1 ! -path "./shelter*" ! -path ./volumes -printf "%p %u %g %m %T@ %s %y\\n" | sort
find . -type f -exec sha1sum {} + | sort
"""
    argv = ["sh", "-ec", script, "sh", str(site.stack.directory)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("kind", RIGHTS, ids=lambda kind: kind.name)
def test_rights_are_given_back_exactly(site: Site, kind: type[permissions.Rights]) -> None:
    if kind.needs_root and os.geteuid():
        pytest.skip("not run: takes root")
    fault = kind()
    before = inventory(site)
    fault.inject(site)
    assert fault.prove(site)
    assert inventory(site) != before
    fault.heal(site)
    assert inventory(site) == before
    fault.heal(site)
    assert inventory(site) == before


@takes_root
@pytest.mark.parametrize(
    "make",
    [lambda volume: volume.make_tmpfs(room=1 << 22), lambda volume: volume.make_ext4(room=1 << 24), Volume.bind],
    ids=["tmpfs", "ext4", "bind"],
)
def test_a_place_is_a_plain_directory_again_with_what_was_written_meanwhile(
    site: Site, base: Path, make: Callable[[Volume], None]
) -> None:
    volume = Volume(site, site.stack.places.repository)
    before = inventory(site)
    make(volume)
    assert volume.mounted
    volume.put_back()
    assert inventory(site) == before
    make(volume)
    (volume.place / "new").write_text("x")
    volume.put_back()
    volume.put_back()
    assert (volume.place / "new").read_text() == "x"
    (volume.place / "new").unlink()
    volume.put_back()
    assert [line for line in inventory(site).splitlines() if not line.startswith("./repo ")] == [
        line for line in before.splitlines() if not line.startswith("./repo ")
    ]
    assert list(mounted(base)) == []


@takes_root
def test_a_place_that_could_not_be_made_a_volume_is_put_back(site: Site) -> None:
    volume = Volume(site, site.stack.places.repository)
    before = inventory(site)
    used = int(subprocess.run(["du", "-sB1", volume.place], check=True, capture_output=True).stdout.split()[0])
    with pytest.raises(CommandError, match="No space left on device"):
        volume.make_tmpfs(room=4096 - used)
    volume.put_back()
    assert inventory(site) == before
