"""Programs run as the stack's user, whether setpriv is there to become it or not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_iopbackup.errors import MachineError
from pytest_iopbackup.stack import host
from pytest_iopbackup.stack.host import Account, account, becoming, run_program

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C"}
ROOT = Account("root", 0, 0)


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    becoming.cache_clear()
    yield
    becoming.cache_clear()


@pytest.fixture(params=["setpriv", "without setpriv"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "setpriv":
        monkeypatch.setattr(host, "becoming", lambda _: ())


def said(*argv: str) -> str:
    return run_program(argv, cwd=Path("/"), env=ENVIRONMENT, timeout=10).stdout


@pytest.mark.usefixtures("way")
def test_a_program_is_that_user_alone_in_a_session_of_its_own() -> None:
    script = (
        "id -u; id -g; id -G; umask; ps -o sid= -p $$ | tr -d ' '; echo $$; sed -n 's/CapEff:.//p' /proc/self/status"
    )
    user, group, groups, mask, session, process, capabilities = said("sh", "-c", script).splitlines()
    assert (user, group) == (str(account().uid), str(account().gid))
    if os.geteuid() == 0:
        assert groups == group
    assert mask == "0077"
    assert session == process
    assert int(capabilities, 16) == 0


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", ["no-such-program", "/no/such/program"])
def test_a_program_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(MachineError, match=f"cannot run {name}: .*No such file or directory") as caught:
        said(name)
    assert caught.value.hint == "is it installed and on PATH?"


def test_setpriv_is_asked_only_where_there_is_another_user_to_become_and_it_can() -> None:
    ourselves = Account("me", os.geteuid(), os.getegid())
    assert becoming(ourselves) == ()
    found = becoming(account() if os.geteuid() == 0 else ROOT)  # an ordinary user cannot become root
    assert bool(found) is (os.geteuid() == 0)


def test_a_setpriv_of_another_kind_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "setpriv"
    other.write_text("#!/bin/sh\necho 'unrecognized option: reuid' >&2\nexit 1\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert becoming(Account("another", 54321, 54321)) == ()
