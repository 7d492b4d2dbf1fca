"""A stack made once per run and dataset, then copied: initdb, stanza, seed, a full and a differential backup."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pytest_iopbackup.stack.base import DATABASE, Service
from pytest_iopbackup.stack.host import account
from pytest_iopbackup.stack.local import LocalStack
from pytest_iopbackup.stack.local_services import DURABLE_OPTIONS, SERVER_OPTIONS, LocalSettings
from pytest_iopbackup.stack.supply import Order, await_first_backup


def ensure_template(order: Order, settings: LocalSettings, stack_half: Path) -> Path:
    """Return the template's directory, building it where this run has none yet; other processes of the run wait."""
    key = f"{order.key}-{order.wal_segment}"
    template = order.workspace / f"t-{key}"
    with _locked(order.workspace / f"t-{key}.lock"):
        if not template.exists():
            building = order.workspace / f"b-{key}"
            shutil.rmtree(building, ignore_errors=True)
            with LocalStack(building, settings) as stack:
                try:
                    _build(stack, stack_half, order)
                except Exception:
                    order.failed(stack)
                    raise
                building.rename(template)
    return template


def clone(template: Path, order: Order, settings: LocalSettings) -> LocalStack:
    """Return a stopped stack that is a copy of the template, with places of its own."""
    options = DURABLE_OPTIONS if order.durable else SERVER_OPTIONS
    stack = LocalStack(order.directory, settings, order.variables, options)
    host = stack.host(Service.DATABASE)
    stack.make_directory()
    host.run(
        ["cp", "--archive", "--reflink=auto", f"{template}/.", str(stack.directory)], timeout=settings.limits.build
    )
    return stack


def _build(stack: LocalStack, stack_half: Path, order: Order) -> None:
    order.stage("initdb")
    stack.make_directories()
    _copy_stack_half(stack_half, stack)
    limits = stack.settings.limits
    host = stack.host(Service.DATABASE)
    # The scripts start several times a second in a trial, and never write bytecode themselves.
    compiling = [
        "python3",
        "-m",
        "compileall",
        "-q",
        "--invalidation-mode=checked-hash",
        str(stack.places.configuration),
    ]
    host.run(compiling, timeout=limits.command)
    host.run(
        ["initdb", "--pgdata", str(stack.places.data), "--username=postgres", "--auth=trust", "--data-checksums",
         "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions",
         f"--wal-segsize={order.wal_segment}"],
        timeout=limits.start,
    )  # fmt: skip
    # Relative to the data directory, so that it also holds in a copy and in a restored database.
    with (stack.places.data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
        configuration.write("\ninclude '../conf/postgresql.conf'\n")
    # Before the server's first start, so that archive_command never runs without a stanza.
    host.run(["pgbackrest", "stanza-create", "--no-online"], timeout=limits.command)
    stack.start_database()
    host.run(["psql", "--quiet", "--no-psqlrc", f"--command=CREATE DATABASE {DATABASE}"], timeout=limits.command)
    order.seed(stack)
    order.stage("full backup by the worker")
    # The backup worker itself takes the first backup, a full one, so that in every copy its next one is an hour away.
    stack.start(Service.BACKUP)
    await_first_backup(stack, limits.backup)
    order.stage("differential backup")
    host.run(["bash", str(stack.places.configuration / "backup.sh"), "diff"], timeout=limits.backup)
    stack.stop(Service.BACKUP)
    stack.stop(Service.DATABASE)


def _copy_stack_half(source: Path, stack: LocalStack) -> None:
    for file in source.iterdir():
        if file.is_file():
            target = stack.places.configuration / file.name
            shutil.copyfile(file, target)
            target.chmod(0o700 if file.suffix in {".sh", ".py"} else 0o600)
            account().own(target)
    programs = stack.directory / "bin"
    programs.mkdir(mode=0o700)
    account().own(programs)
    (programs / "python3").symlink_to(stack.settings.binaries.python)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
