"""What must hold of a Compose file so that a drill on it cannot harm anything: its project shares nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.stack.mapping import ComposeMapping

_HOST = ("privileged", "pid", "ipc", "cgroup_parent", "volumes_from", "devices", "userns_mode", "uts")
"""Keys of a service by which it can reach into the machine, or into other containers."""


def refuse_harm(configuration: Mapping[str, Any], project: str, mapping: ComposeMapping, file: str) -> None:
    """Raise UsageError for a Compose file whose project would share something with another: a drill cannot harm.

    ``configuration`` is what ``docker compose config`` says of it.
    """
    problems = [*_missing(configuration, mapping), *_shared(configuration, project)]
    core = configuration.get("services", {}).get(mapping.services.core, {})
    problems += _repositories(_pgbackrest_options(core))
    if problems:
        raise UsageError(
            f"{file} cannot be drilled on: {'; '.join(problems)}",
            hint="a drill runs a copy of the stack, with volumes and networks of its own; name other services and "
            "volumes with --iop-compose-map; a second --iop-compose-file overrides what is shared",
        )


def _missing(configuration: Mapping[str, Any], mapping: ComposeMapping) -> Iterator[str]:
    for kind, names, known in (
        ("service", mapping.services, configuration.get("services", {})),
        ("volume", mapping.volumes, configuration.get("volumes", {})),
    ):
        for name in (getattr(names, field) for field in names.__dataclass_fields__):
            if name not in known:
                yield f"it has no {kind} '{name}' (it has {', '.join(sorted(known)) or 'none'})"


def _shared(configuration: Mapping[str, Any], project: str) -> Iterator[str]:
    for kind in ("volumes", "networks"):
        for name, entry in configuration.get(kind, {}).items():
            if entry.get("external") or not str(entry.get("name", "")).startswith(f"{project}_"):
                yield f"{kind[:-1]} '{name}' is not the project's own (it is '{entry.get('name', name)}')"
    for name, entry in configuration.get("volumes", {}).items():
        yield from _elsewhere(name, entry)
    for service, entry in configuration.get("services", {}).items():
        if "container_name" in entry:
            yield f"service '{service}' has the fixed container_name '{entry['container_name']}'"
        yield from (f"service '{service}' has {key}: {entry[key]}" for key in _HOST if entry.get(key))
        if entry.get("network_mode") not in {None, "none"}:
            yield f"service '{service}' has network_mode: {entry['network_mode']}"
        yield from _outside(service, entry.get("volumes", ()))
        yield from (f"service '{service}' publishes port {port['published']}" for port in entry.get("ports", ())
                    if str(port.get("published", "0")) != "0")  # fmt: skip


def _elsewhere(name: str, volume: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a volume that may lie somewhere else than where Docker makes a new, empty one."""
    options = volume.get("driver_opts") or {}
    if volume.get("driver", "local") != "local":
        yield f"volume '{name}' has the driver '{volume['driver']}'"
    elif options and options.get("type") != "tmpfs":
        yield f"volume '{name}' lies elsewhere: {options.get('device') or options}"


def _outside(service: str, mounts: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for mount in mounts:
        if mount["type"] == "bind" and not mount.get("read_only"):
            yield f"service '{service}' may write to {mount['source']} of this machine"


def _repositories(options: Mapping[str, str]) -> Iterator[str]:
    """Yield the repositories and hosts that do not lie in the project's volumes."""
    for name, value in sorted(options.items()):
        if re.fullmatch(r"repo\d*-type", name) and value not in {"posix", "cifs"}:
            yield f"pgBackRest's repository is not in a volume: {name}={value}"
        if re.fullmatch(r"(repo|pg)\d*-host", name) and value:
            yield f"pgBackRest works on another host: {name}={value}"


def _pgbackrest_options(service: Mapping[str, Any]) -> Mapping[str, str]:
    """Return pgBackRest's options as a service has them: of its configuration file, and of its environment, which wins.

    A file that is not mounted from this machine is the image's own, and not seen.
    """
    options: dict[str, str] = {}
    environment = service.get("environment") or {}
    path = PurePosixPath(environment.get("PGBACKREST_CONFIG") or "/etc/pgbackrest/pgbackrest.conf")
    for mount in service.get("volumes", ()):
        if mount["type"] == "bind" and path.is_relative_to(mount["target"]):
            file = Path(mount["source"], path.relative_to(mount["target"]))
            if file.is_file():
                options = dict(re.findall(r"^\s*([a-z0-9-]+)\s*=\s*(.*?)\s*$", file.read_text(), re.MULTILINE))
    for name, value in environment.items():
        if name.startswith("PGBACKREST_") and value:
            options[name.removeprefix("PGBACKREST_").lower().replace("_", "-")] = str(value)
    return options
