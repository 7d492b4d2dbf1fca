"""control/docker.sh, base_image.sh and setup.sh: what they ask of Docker and apt, and what they say."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from control import ROOT, shell

FAKE_DOCKER = """\
#!/bin/bash
# Answers as the files beside it say, and writes down what it was asked.
here=${0%/*}
echo "$*" >>"$here/calls"
case "$*" in
    "compose version --short") cat "$here/compose-version" 2>/dev/null ;;
    "version --format"*) [[ ! -e $here/no-engine ]] || { cat "$here/no-engine" >&2; exit 1; } ;;
    version) cat "$here/no-engine" >&2; exit 1 ;;
    *"config --images pgbackrest") echo iop-backup:17 ;;
    *"config pgbackrest") cat "$here/config" ;;
    "image inspect"*) grep -qxF "$3" "$here/images" ;;
    "pull"*) [[ ! -e $here/no-registry ]] || { echo "no such host" >&2; exit 1; } ;;
    *build*) [[ ! -e $here/no-build ]] || { echo "it does not build"; exit 1; } ;;
esac
"""


class Machine:
    """A machine with a fake ``docker``; ``run`` calls one function there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "docker").write_text(FAKE_DOCKER)
        (folder / "docker").chmod(0o755)
        self.say("compose-version", "2.26.1-4")
        self.say("images", "debian:trixie-slim")
        self.say("config", '    build:\n      args:\n        BASE_IMAGE: debian:trixie-slim\n        OTHER: "1"')

    def say(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text + "\n")

    def program(self, name: str, text: str) -> None:
        self.say(name, f"#!/bin/bash\n{text}")
        (self.folder / name).chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
        return {**inherited, "PATH": f"{self.folder}:{os.environ['PATH']}", "TMPDIR": str(self.folder)}

    def run(self, *call: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            shell('"$@"', *call), env={**self.environment, **environment}, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    @property
    def calls(self) -> list[str]:
        file = self.folder / "calls"
        return file.read_text().replace(f"--project-directory {ROOT} ", "").splitlines() if file.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "bin")


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("2.20", 0), ("2.20.0", 0), ("2.26.1-4", 0), ("v2.24.6+ds1-0ubuntu1", 0), ("10.0.0", 0),
        ("2.19.1", 69), ("1.29.2", 69), ("", 69),
    ],
)  # fmt: skip
def test_compose_is_new_enough(machine: Machine, version: str, code: int) -> None:
    machine.say("compose-version", version)
    result = machine.run("ensure_compose")
    assert result.returncode == code, result.stderr
    if code:
        assert (
            f"Docker Compose 2.20 or newer is needed; 'docker compose version' says: {version or 'no such plugin'}"
            in result.stderr
        )
        assert "HINT: install the plugin" in result.stderr


def test_no_docker_program(machine: Machine) -> None:
    (machine.folder / "docker").unlink()
    for program in ("bash", "sort", "timeout", "dirname"):
        (machine.folder / program).symlink_to(str(shutil.which(program)))
    result = machine.run("ensure_compose", PATH=str(machine.folder))
    assert result.returncode == 69
    assert "there is no docker program in PATH" in result.stderr


@pytest.mark.parametrize(
    ("words", "host", "said"),
    [
        ("permission denied while trying to connect to the Docker daemon", "", "usermod --append --groups docker"),
        ("Cannot connect to the Docker daemon", "", "HINT: start it"),
        ("Cannot connect to the Docker daemon", "tcp://192.0.2.1:1", "at DOCKER_HOST=tcp://192.0.2.1:1"),
    ],
)  # fmt: skip
def test_an_engine_that_does_not_answer_is_told_of_with_its_reason(
    machine: Machine, words: str, host: str, said: str
) -> None:
    machine.say("no-engine", words)
    result = machine.run("ensure_engine", DOCKER_HOST=host)
    assert result.returncode == 69
    assert words in result.stderr
    assert said in result.stderr


def test_an_engine_that_was_named_is_not_replaced_by_an_own_one(machine: Machine) -> None:
    machine.say("no-engine", "Cannot connect")
    result = machine.run("provide_engine", DOCKER_HOST="unix:///nowhere")
    assert result.returncode == 69
    assert "at DOCKER_HOST=unix:///nowhere" in result.stderr
    assert not list(machine.folder.glob("iop-engine.*"))


def test_an_image_that_is_there_costs_no_build(machine: Machine) -> None:
    machine.say("images", "iop-backup:17")
    result = machine.run("ensure_image")
    assert (result.returncode, result.stderr) == (0, "")
    assert not [call for call in machine.calls if "build" in call or "pull" in call]


def test_an_image_that_is_missing_is_built_on_the_base_image(machine: Machine) -> None:
    result = machine.run("ensure_image")
    assert result.returncode == 0
    assert "building the image iop-backup:17" in result.stderr
    assert "compose --progress=plain build pgbackrest" in machine.calls
    assert "pull --quiet debian:trixie-slim" not in machine.calls


def test_an_image_is_built_anew_when_asked(machine: Machine) -> None:
    machine.say("images", "iop-backup:17\ndebian:trixie-slim")
    result = machine.run("ensure_image", "always")
    assert (result.returncode, result.stderr) == (0, "")
    assert "compose --progress=plain build pgbackrest" in machine.calls


def test_a_build_that_fails_shows_its_log(machine: Machine) -> None:
    machine.say("no-build", "")
    result = machine.run("ensure_image")
    assert result.returncode == 69
    assert "it does not build" in result.stderr
    assert "the image iop-backup:17 could not be built" in result.stderr
    assert not list(machine.folder.glob("tmp.*"))


def test_a_base_image_that_is_missing_is_pulled(machine: Machine) -> None:
    machine.say("images", "")
    assert machine.run("ensure_image").returncode == 0
    calls = machine.calls
    assert calls.index("pull --quiet debian:trixie-slim") < calls.index("compose --progress=plain build pgbackrest")


def test_a_base_image_of_another_kind_is_never_made_here(machine: Machine) -> None:
    machine.say("images", "")
    machine.say("no-registry", "")
    machine.say("config", "        BASE_IMAGE: registry.example/debian:trixie-slim")
    result = machine.run("ensure_image")
    assert result.returncode == 69
    assert "it cannot be pulled: no such host" in result.stderr
    assert "registry.example/debian:trixie-slim cannot be pulled, nor made here" in result.stderr
    assert "build" not in " ".join(machine.calls)


def test_an_image_that_is_not_built_here_is_pulled(machine: Machine) -> None:
    machine.say("config", "    image: registry.example/iop-backup")
    assert machine.run("ensure_image").returncode == 0
    assert machine.calls[-1] == "compose pull --quiet pgbackrest"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ([], ""), (["--iop-stack=compose"], "compose"), (["-x", "--iop-stack", "compose", "-n", "2"], "compose"),
        (["--iop-stack=local", "compose"], "local"), (["--iop-stack=local", "--iop-stack=compose"], "compose"),
    ],
)  # fmt: skip
def test_the_kind_of_stack_that_a_drill_is_for(machine: Machine, arguments: list[str], kind: str) -> None:
    assert machine.run("stack_kind", *arguments).stdout == kind


def publish(folder: Path, label: str, origin: str = "Debian") -> str:
    """Make a package source with one package; return its URI."""
    suite = folder / "dists" / "stable"
    machine = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    index = suite / "main" / f"binary-{machine}" / "Packages"
    index.parent.mkdir(parents=True)
    listed = f"Package: nothing\nVersion: 1\nArchitecture: {machine}\nFilename: none\nSize: 0\n\n"
    index.write_text(listed)
    (suite / "Release").write_text(
        f"Origin: {origin}\nLabel: {label}\nSuite: stable\nCodename: stable\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n"
        f"SHA256:\n {sha256(listed.encode()).hexdigest()} {len(listed)} {index.relative_to(suite)}\n"
    )
    return f"file:{folder}"


def one_line(uri: str, *, enabled: bool = True) -> tuple[str, str]:
    return "list", f"{'' if enabled else '# '}deb [trusted=yes] {uri} stable main\n"


def deb822(uri: str, *, enabled: bool = True) -> tuple[str, str]:
    return "sources", (
        f"# a comment\nTypes: deb\nURIs: {uri}\nSuites: stable\nComponents: main\nTrusted: yes\n"
        f"Enabled: {'yes' if enabled else 'no'}\n"
    )


@pytest.mark.parametrize("form", [one_line, deb822])
def test_the_mirror_is_the_one_that_apt_has(
    machine: Machine, tmp_path: Path, form: Callable[..., tuple[str, str]]
) -> None:
    parts = tmp_path / "parts"
    sources = {
        "1-other": form(publish(tmp_path / "other", "Debian", origin="Somebody")),
        "2-off": form(publish(tmp_path / "off", "Debian"), enabled=False),
        "3-security": form(publish(tmp_path / "security", "Debian-Security")),
        "4-debian": form(publish(tmp_path / "debian", "Debian")),
    }
    for place in (parts, tmp_path / "lists" / "partial", tmp_path / "cache"):
        place.mkdir(parents=True)
    for name, (suffix, text) in sources.items():
        (parts / f"{name}.{suffix}").write_text(text)
    config = tmp_path / "apt.conf"
    config.write_text(
        f'Dir::Etc::SourceList "/dev/null"; Dir::Etc::SourceParts "{parts}";\n'
        f'Dir::State::Lists "{tmp_path}/lists"; Dir::Cache "{tmp_path}/cache"; APT::Sandbox::User "";\n'
        'Acquire::http::Proxy "http://proxy.example:3128"; Acquire::Check-Valid-Until "false";\n'
    )
    environment = {"APT_CONFIG": str(config)}
    assert machine.run("debian_mirror", "Debian", **environment).stdout == "", "before the first apt-get update"
    machine.run("apt-get", "update", **environment)
    assert machine.run("debian_mirror", "Debian", **environment).stdout == f"file:{tmp_path}/debian"
    assert machine.run("debian_mirror", "Debian-Security", **environment).stdout == f"file:{tmp_path}/security"
    settings = machine.run("mirror_settings", **environment).stdout.splitlines()
    assert {'Acquire::http::Proxy "http://proxy.example:3128";', 'Acquire::Check-Valid-Until "false";'} <= set(settings)


def without_network(machine: Machine, debootstrap: str) -> None:
    """Let the base image be made: the registry does not answer, apt has a mirror, and debootstrap is a script."""
    machine.program("debootstrap", debootstrap)
    machine.program("apt-get", "echo http://mirror.example/debian/")
    machine.program("sudo", 'exec "$@"')


def test_a_debootstrap_that_fails_leaves_nothing(machine: Machine) -> None:
    without_network(machine, "echo 'E: Invalid Release file'; exit 1")
    result = machine.run("make_base_image", "debian:trixie-slim", "trixie")
    assert result.returncode == 69
    assert "E: Invalid Release file" in result.stderr
    assert "debootstrap of trixie from http://mirror.example/debian failed" in result.stderr
    assert not list(machine.folder.glob("iop-base.*"))
    assert not [call for call in machine.calls if call.startswith(("import", "tag"))]


def await_condition(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_base_image_that_is_interrupted_leaves_nothing(machine: Machine, signal_number: int) -> None:
    without_network(machine, 'mkdir -p "${@: -2:1}/usr"; exec sleep 60')
    process = subprocess.Popen(
        shell("make_base_image debian:trixie-slim trixie"), env=machine.environment, start_new_session=True
    )
    await_condition(lambda: list(machine.folder.glob("iop-base.*/root/usr")))
    os.killpg(process.pid, signal_number)
    assert process.wait(20) != 0
    await_condition(lambda: not list(machine.folder.glob("iop-base.*")))
    assert not [call for call in machine.calls if call.startswith(("import", "tag"))]


WAITING = """
import signal, sys, time
def leave(number, frame):
    print("cleaned up after", signal.Signals(number).name, flush=True)
    sys.exit(9)
signal.signal(signal.SIGTERM, leave)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "Ctrl-C would not be heard"
print("ready", sys.stdin.readline().strip(), flush=True)
time.sleep(60)
"""


def test_tests_beside_an_own_engine_get_input_and_signals_and_give_their_exit_code(machine: Machine) -> None:
    script = 'engine=$TMPDIR; exec {engine_lock}<"$TMPDIR"; trap "echo engine stopped" EXIT; with_engine "$@"'
    process = subprocess.Popen(
        shell(script, "python3", "-c", WAITING), env=machine.environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    process.stdin.write("and reading\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready and reading\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == "cleaned up after SIGTERM\nengine stopped\n"
    assert process.wait(20) == 9
