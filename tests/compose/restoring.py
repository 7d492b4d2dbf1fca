"""What the tests of control.sh restore share: a live client, and ways to stop a restore at a chosen stage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployment import TOKEN, Deployment, wait_for

REPOSITORY = "cd /var/lib/pgbackrest && find . -type f -exec sha256sum {} + | sort -k 2"

# Stands before a program in PATH, in some containers: while the file WHAT lies beside it, a program is held up there.
SLOW = """\
#!/bin/bash
here=/pgbackrest/slow
case $0/$* in
    */find/*" -delete") [[ ! -e $here/wipe ]] || { rm -rf "$PGDATA/base" && sleep infinity; } ;;
    */pgbackrest/*restore*)
        if [[ -e $here/restore ]]; then
            (exec -a pgbackrest /usr/bin/pgbackrest "$@") &
            until [[ -e $PGDATA/base/1 ]]; do :; done
            kill -STOP "$!"
            echo "half restored"
            wait
        fi
        ;;
    */pgbackrest/*archive-get*) while [[ -e $here/archive-get ]]; do sleep 0.1; done ;;
    */pgbackrest/*backup*) while [[ -e $here/backup ]]; do sleep 0.1; done ;;
esac
exec -a "${0##*/}" "/usr/bin/${0##*/}" "$@" # by this name it comes into restore_command
"""
SERVICES = ("database", "database_wipe", "pgbackrest_restore", "pgbackrest_backup")
PATH = "/pgbackrest/slow:/usr/lib/postgresql/17/bin:/usr/local/bin:/usr/bin:/bin"


def hold_up(system: Deployment) -> Path:
    """Make programs slow inside the containers; return the directory whose files say which."""
    slow = system.directory / "pgbackrest" / "slow"
    slow.mkdir()
    slow.chmod(0o755)
    for name in ("find", "pgbackrest"):
        (slow / name).write_text(SLOW)
        (slow / name).chmod(0o755)
    override = {"services": {name: {"environment": {"PATH": PATH}} for name in SERVICES}}
    (system.directory / "compose.override.yaml").write_text(json.dumps(override))
    return slow


def inventory(system: Deployment) -> str:
    """Return name and checksum of every file in the repository."""
    return system.must("docker", "compose", "exec", "-T", "pgbackrest", "sh", "-c", REPOSITORY)


def marker(system: Deployment) -> dict[str, Any] | None:
    """Return what the marker of an unfinished restore says."""
    printed = system.exec("pgbackrest", "cat", "/var/lib/postgresql/data.restore").stdout
    return json.loads(printed) if printed else None


def spied_docker(directory: Path, *cases: str) -> str:
    """Put a docker before the real one, with ``case`` branches on its arguments; return PATH."""
    docker = directory / "docker"
    docker.write_text(f'#!/bin/bash\nreal={shutil.which("docker")}\ncase " $* " in\n' + "\n".join(cases) + "\nesac\n")
    with docker.open("a") as file:
        file.write('exec "$real" "$@"\n')
    docker.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


class Running:
    """A ``control.sh restore`` in a process group of its own."""

    def __init__(self, system: Deployment, *target: str, **environment: str) -> None:
        self.system = system
        self.log = system.directory / "restore.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [system.directory / "control.sh", "restore", TOKEN, *target],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **environment},
            )  # fmt: skip

    @property
    def output(self) -> str:
        """What was printed so far."""
        return self.log.read_text()

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition; fail if the restore ends before it holds."""

        def met() -> object:
            assert self.process.poll() is None or condition(), f"ended before {what}:\n{self.output}"
            return condition()

        try:
            wait_for(met, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None

    def wait_for_output(self, text: str) -> None:
        """Wait until a text was printed."""
        self.wait_until(lambda: text in self.output, repr(text))

    def kill(self) -> None:
        """End it as a power failure would: control.sh, its children and the container that works for it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for step in ("wipe", "files"):
            self.system.run("docker", "kill", f"{self.system.project}-restore-{step}")

    def end(self, seconds: float = 90) -> int:
        """Wait for its end."""
        return self.process.wait(seconds)


class Client:
    """Writes numbers, each in a transaction of its own, and remembers which ones were acknowledged."""

    def __init__(self, system: Deployment) -> None:
        self.acknowledged: list[int] = []
        self.attempted = 0
        self.refused = 0
        self._container = f"{system.project}-database-1"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        while not self._over.is_set():
            self.attempted += 1
            sql = f"INSERT INTO ledger VALUES ({self.attempted}) RETURNING n"
            argv = ["docker", "exec", self._container, "psql", "-XAtqc", sql]
            if subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip() == str(self.attempted):
                self.acknowledged.append(self.attempted)
            else:
                self.refused += 1

    def wrote(self, more: int = 3) -> None:
        """Wait until some more rows were acknowledged."""
        goal = len(self.acknowledged) + more
        wait_for(lambda: len(self.acknowledged) >= goal, what="the client's writes")

    def stop(self) -> None:
        """End after the present row."""
        self._over.set()
        self._thread.join(30)


@contextmanager
def client(system: Deployment) -> Iterator[Client]:
    """Give a client that writes until the block ends, from 1 on."""
    system.sql("CREATE TABLE IF NOT EXISTS ledger (n int); TRUNCATE ledger")
    it = Client(system)
    try:
        yield it
    finally:
        it.stop()


def numbers(system: Deployment, where: str = "true") -> list[int]:
    """Return the client's rows."""
    return [int(line) for line in system.sql(f"SELECT n FROM ledger WHERE {where} ORDER BY n").split()]
