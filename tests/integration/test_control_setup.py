"""An own Docker engine for a run: started for real, in a network of its own, and gone however the run ends."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from control import shell

pytestmark = pytest.mark.integration

# Namespaces without the machine's own engine and network.
ISOLATED = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
OBSERVE = """
observe() {
    echo "processes: $(cat /proc/[0-9]*/comm | grep -cE '^(dockerd|containerd.*|sleep)$')"
    echo "links: $(ip -oneline link | grep -vc ' lo:')"
    echo "rules: $({ iptables-save; ip6tables-save; } 2>/dev/null | grep -c -e DOCKER -e docker -e br-)"
    echo "mounts: $(grep -c "$TMPDIR/" /proc/self/mounts)"
    echo "left: $(find "$TMPDIR" -mindepth 1 -maxdepth 1 -name 'iop-*' | wc -l)"
}
"""
# The container's image is one program with its libraries.
RUN = (
    OBSERVE
    + """
provide_engine
mapfile -t files < <(ldd "$(command -v sleep)" | grep -o '/[^ ]*'; command -v sleep)
tar --create --dereference --absolute-names "${files[@]}" 2>/dev/null | docker import - mini >/dev/null
docker network create net >/dev/null
docker run --detach --stop-timeout 1 --network net mini sleep 1000 >/dev/null
echo "containers: $(docker ps --quiet | wc -l), driver $(docker info --format '{{.Driver}}')"
(set +e; observe) | sed 's/^/during: /'
"""
)
AROUND = (
    OBSERVE
    + """
mount -t tmpfs tmpfs /run
exec 2>&1
set +e
"$@"
code=$?
echo "exit code $code"
[[ $code != 137 ]] || sweep_engines # what a next run does
observe
"""
)


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("with_engine bash -c 'exit 7'", "exit code 7"),
        ("kill -TERM $$", "exit code 143"),
        ("fail 69 broken hint", "ERROR: broken"),
        ("kill -KILL $$", "exit code 137"),
    ],
    ids=["ended", "terminated", "failed", "killed"],
)
def test_an_own_engine_works_and_nothing_of_it_is_left(base: Path, end: str, said: str) -> None:
    as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    result = subprocess.run(
        [*as_root, "env", "--unset=DOCKER_HOST", f"TMPDIR={base}", *ISOLATED, *shell(AROUND, *shell(RUN + end))],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    lines = result.stdout.splitlines()
    assert "containers: 1, driver overlay2" in lines, result.stdout + result.stderr
    during = [line.removeprefix("during: ") for line in lines if line.startswith("during: ")]
    assert [line for line in during if line.endswith(": 0")] == ["mounts: 0"], "the checks below would see nothing"
    assert said in result.stdout
    assert lines[-5:] == ["processes: 0", "links: 0", "rules: 0", "mounts: 0", "left: 0"], result.stdout
