"""Functions of control.sh's parts, run by themselves: sourced in a shell as control.sh does it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
PRELUDE = """\
set -Eeuo pipefail
top=$1
say() { printf '%s\\n' "control.sh: $*" >&2; }
fail() {
    say "ERROR: $2"
    say "HINT: $3"
    exit "$1"
}
source "$top/control/docker.sh"
source "$top/control/setup.sh"
shift
"""


def shell(script: str, *arguments: str, top: Path = ROOT) -> list[str]:
    """Return the command that runs a script in which these functions are known; its arguments are ``$1`` and so on."""
    return ["bash", "-c", PRELUDE + script, "control.sh", str(top), *arguments]
