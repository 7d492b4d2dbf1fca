"""The scenario "pitr" by pytest against the same raw commands in a shell script: what the harness itself costs.

The limit is the shell script, run in the same minutes on the same machine, alternating. Bound: 1.15 times as long.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bounds import Claim, judge
from tabulate import tabulate

from pytest_iopbackup import resources
from pytest_iopbackup.dataset.load import load
from pytest_iopbackup.dataset.spec import DatasetSpec
from pytest_iopbackup.drill import nothing
from pytest_iopbackup.limits import Limits
from pytest_iopbackup.stack.base import Service, Stack
from pytest_iopbackup.stack.binaries import Binaries, find_binaries
from pytest_iopbackup.stack.host import account
from pytest_iopbackup.stack.local_services import LocalSettings
from pytest_iopbackup.stack.supply import Order
from pytest_iopbackup.stack.template import ensure_template

BOUND = 1.15
ROUNDS = int(os.environ.get("ROUNDS", "5"))
_WRITES = {1: 200, 2: 200, 3: 100}
_CLIENTS = 4


def main() -> int:
    """Prepare the raw script's input, run both in turn, print the ratio; 1 where it is over the bound."""
    binaries = find_binaries()
    with tempfile.TemporaryDirectory(prefix="iop-bench-", dir="/tmp") as name:  # short, for sockets
        directory = Path(name)
        account().own(directory)
        _prepare(directory, binaries)
        raw, harness = [], []
        for number in range(ROUNDS + 1):
            raw.append(_timed(_raw(directory), _environment(binaries), unprivileged=True))
            harness.append(_timed(_harness(directory), dict(os.environ), unprivileged=False))
            print(
                f"round {number}: raw {raw[-1]:.1f} s, harness {harness[-1]:.1f} s"
                + (" (warm-up)" if not number else "")
            )
    ratios = [ours / theirs for ours, theirs in zip(harness[1:], raw[1:], strict=True)]
    ratio = statistics.median(ratios)
    rows = [
        ("raw commands", *_middle_and_range(raw[1:])),
        ("pytest --iop-scenario=pitr", *_middle_and_range(harness[1:])),
        ("ratio, pair by pair", *_middle_and_range(ratios)),
    ]
    print(tabulate(rows, ("pitr", "median s", "range"), disable_numparse=True))
    return judge(Claim(what="scenario pitr, to the same commands in a shell script", figure=ratio, bound=BOUND))


def _middle_and_range(figures: list[float]) -> tuple[str, str]:
    return f"{statistics.median(figures):.2f}", f"{min(figures):.2f}-{max(figures):.2f}"


def _prepare(directory: Path, binaries: Binaries) -> None:
    """Write what the raw script loads: a dump of the very dataset, and transactions of the workload's size."""
    settings = LocalSettings(binaries=binaries, limits=Limits())

    def seed(stack: Stack) -> None:
        with stack.connect() as connection:
            load(connection, DatasetSpec(), nothing)
        dump = ["pg_dump", "--dbname=iop", "--no-owner", f"--file={directory / 'seed.sql'}"]
        stack.host(Service.DATABASE).run(dump, timeout=60)

    order = Order(
        workspace=directory,
        directory=directory / "unused",
        key="dump",
        seed=seed,
        variables={},
        sizes={},
        stage=lambda _name: nothing,
        failed=lambda _stack: None,
    )
    template = ensure_template(order, settings, resources.stack_half())
    shutil.rmtree(template)
    dump = directory / "seed.sql"  # a dump of one database leaves out roles
    dump.write_text("CREATE ROLE iop_app NOLOGIN;\n" + dump.read_text())
    writes = directory / "writes"
    writes.mkdir()
    for number, transactions in _WRITES.items():
        for client in range(_CLIENTS):
            statements = [_transaction(number, client, n) for n in range(transactions // _CLIENTS)]
            (writes / f"{number}-{client}.sql").write_text("".join(statements))
    shutil.copytree(resources.stack_half(), directory / "half", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (directory, *directory.rglob("*")):
        account().own(path)


def _transaction(number: int, client: int, n: int) -> str:
    return (
        "BEGIN;\n"
        "INSERT INTO identity.audit_log (occurred_at, request_id, action, details) "
        "SELECT occurred_at, gen_random_uuid(), action, details FROM identity.audit_log LIMIT 1;\n"
        f"UPDATE identity.users SET version = version + 1 WHERE number = {1 + client + _CLIENTS * n};\n"
        f"SELECT {number};\n"
        "COMMIT;\n"
    )


def _raw(directory: Path) -> list[str]:
    script = Path(__file__).with_name("raw_pitr.sh")
    copy = directory / "raw_pitr.sh"
    shutil.copyfile(script, copy)
    account().own(copy)
    names = ("raw", "half", "seed.sql", "writes")
    return ["bash", str(copy), *(str(directory / name) for name in names)]


def _harness(directory: Path) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--iop-scenario=pitr",
            f"--iop-report-dir={directory / 'reports'}"]  # fmt: skip


def _environment(binaries: Binaries) -> dict[str, str]:
    return {"PATH": f"{binaries.postgresql}:{binaries.pgbackrest.parent}:/usr/bin:/bin"}


def _timed(argv: list[str], environment: dict[str, str], *, unprivileged: bool) -> float:
    started = time.monotonic()
    arguments = account().popen_arguments if unprivileged else {}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, **arguments)
    if done.returncode != 0:
        sys.exit(f"{argv} ended with exit code {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
