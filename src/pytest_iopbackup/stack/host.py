"""Programs as child processes of the harness, in sessions of their own and as an unprivileged user."""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from errno import ENOENT
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from pytest_iopbackup.errors import CommandError, DeadlineError, MachineError
from pytest_iopbackup.stack.base import CommandResult, LineListener


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged user that the stack's programs run as."""

    name: str
    uid: int
    gid: int

    @property
    def popen_arguments(self) -> dict[str, Any]:
        """Arguments that make ``subprocess.Popen`` run as this user; none where we are this user already."""
        if os.geteuid() == self.uid:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give a file or directory to this user."""
        if os.geteuid() != self.uid:
            os.chown(path, self.uid, self.gid)


@lru_cache(maxsize=1)
def account() -> Account:
    """Return ourselves, or as root the user ``postgres``, or ``nobody`` where there is none.

    PostgreSQL's programs refuse root, and so does pgBackRest from 2.59 on.
    """
    if os.geteuid() != 0:
        return Account(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid())
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise MachineError(
        "running as root, which PostgreSQL refuses, and there is neither a user 'postgres' nor 'nobody' to become",
        hint="create one (useradd --system postgres), or run as an ordinary user",
    )


@lru_cache(maxsize=1)
def becoming(user: Account) -> tuple[str, ...]:
    """Return what becomes a user and then the program that follows; nothing where we are that user, or without setpriv.

    Asked for another user, Python copies the whole of its own process for each program: 10 ms of processor time in one
    of 100 MB, during which none of its threads goes on. Otherwise it need not (vfork), and util-linux's setpriv, before
    the program, takes 2 ms.
    """
    found = shutil.which("setpriv")
    if os.geteuid() == user.uid or found is None:
        return ()
    become = (found, f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--")
    try:
        tried = subprocess.run([*become, "true"], check=False, capture_output=True, cwd="/", timeout=30)
    except (OSError, subprocess.SubprocessError):
        return ()
    return become if tried.returncode == 0 else ()


def spawn(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], as_account: bool = True, **arguments: Any
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that Ctrl-C reaches only the harness, which then ends it in order.

    Raises FileNotFoundError where there is none of that name.
    """
    become = becoming(account()) if as_account else ()
    if become and shutil.which(argv[0], path=env.get("PATH", os.defpath)) is None:
        raise FileNotFoundError(ENOENT, os.strerror(ENOENT), argv[0])
    return subprocess.Popen(
        [*become, *argv],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        umask=0o077,
        **(account().popen_arguments if as_account and not become else {}),
        **arguments,
    )


def end_group(process: subprocess.Popen[bytes], *, grace: float = 5) -> None:
    """End a process and all of its session: SIGTERM, then SIGKILL after ``grace`` seconds."""
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 30.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        return


def run_program(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,
    check: bool = True,
    listener: LineListener | None = None,
    as_account: bool = True,
) -> CommandResult:
    """Run a program to its end, in a session of its own; see :meth:`~pytest_iopbackup.stack.base.Host.run`.

    ``as_account`` false runs it as ourselves: what Docker's socket asks for.
    """
    started = time.monotonic()
    try:
        process = spawn(argv, cwd=cwd, env=env, as_account=as_account, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError as error:
        raise MachineError(f"cannot run {argv[0]}: {error}", hint="is it installed and on PATH?") from error
    printed: tuple[list[str], list[str]] = ([], [])
    readers = [
        threading.Thread(target=_drain, args=(process.stdout, printed[0], listener), daemon=True),
        threading.Thread(target=_drain, args=(process.stderr, printed[1], None), daemon=True),
    ]
    for reader in readers:
        reader.start()
    try:
        await_end(process, timeout)
    except subprocess.TimeoutExpired:
        end_group(process)
        raise DeadlineError(
            f"{' '.join(argv)}: still running after {timeout:g} s, ended",
            hint="raise --iop-timeout-scale if the machine is slow; otherwise see the stack's logs",
        ) from None
    except BaseException:  # Ctrl-C: the program is in its own session and has not seen it
        end_group(process)
        raise
    for reader in readers:
        reader.join(5)
    result = CommandResult(
        tuple(argv), process.returncode, "".join(printed[0]), "".join(printed[1]), time.monotonic() - started
    )
    if check and result.exit_code != 0:
        raise CommandError(result)
    return result


@dataclass(frozen=True, slots=True)
class LocalHost:
    """The machine we are on, seen from one service of a local stack."""

    name: str
    directory: Path
    environment: Mapping[str, str]
    as_account: bool = True
    """As the stack's user; else as ourselves."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        listener: LineListener | None = None,
    ) -> CommandResult:
        """See :class:`~pytest_iopbackup.stack.base.Host`."""
        environment = {**self.environment, **(env or {})}
        return run_program(
            argv,
            cwd=self.directory,
            env=environment,
            timeout=timeout,
            check=check,
            listener=listener,
            as_account=self.as_account,
        )

    def read(self, path: Path) -> bytes:
        """See :class:`~pytest_iopbackup.stack.base.Host`."""
        return path.read_bytes()


def await_end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a program's end. Raises subprocess.TimeoutExpired.

    Python's own ``wait`` with a limit looks every 50 ms (before 3.15), which adds up over hundreds of programs.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:  # before Linux 5.3, or forbidden
        process.wait(seconds)
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(seconds * 1000)
    finally:
        os.close(descriptor)
    process.wait(0)


def _drain(pipe: IO[bytes], into: list[str], listener: LineListener | None) -> None:
    with pipe:
        for raw in pipe:
            line = raw.decode(errors="replace")
            into.append(line)
            if listener is not None:
                listener(line)
