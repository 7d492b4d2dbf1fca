"""A Compose file is drilled on only if its project shares nothing with another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_iopbackup.cluster.operate import wrong_confirmations
from pytest_iopbackup.errors import UsageError
from pytest_iopbackup.stack.base import TOKEN
from pytest_iopbackup.stack.harm import refuse_harm
from pytest_iopbackup.stack.mapping import ComposeMapping, Services, Volumes

Change = Callable[[dict[str, Any]], object]

# What `docker compose config --format json` says, cut to what is looked at.
GOOD: dict[str, Any] = {
    "services": {
        name: {
            "image": "iop-backup",
            "volumes": [{"type": "bind", "source": "/srv/pgbackrest", "target": "/pgbackrest", "read_only": True}],
        }
        for name in (getattr(Services(), field) for field in Services.__dataclass_fields__)
    },
    "volumes": {
        name: {"name": f"iop-look_{name}"}
        for name in (getattr(Volumes(), field) for field in Volumes.__dataclass_fields__)
    },
    "networks": {"default": {"name": "iop-look_default"}},
}


def refusal(change: Change) -> str:
    configuration = copy.deepcopy(GOOD)
    change(configuration)
    with pytest.raises(UsageError) as caught:
        refuse_harm(configuration, "iop-look", ComposeMapping(), "/srv/compose.yaml")
    assert caught.value.hint is not None
    return caught.value.message


def test_a_project_of_its_own_is_accepted() -> None:
    refuse_harm(GOOD, "iop-look", ComposeMapping(), "/srv/compose.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["services"].pop("database"), "it has no service 'database' (it has database_wipe, "),
        (lambda c: c["volumes"].pop("pg_backrest_repo"), "it has no volume 'pg_backrest_repo'"),
        (
            lambda c: c["volumes"]["pg_backrest_repo"].update(name="live_repo"),
            "'pg_backrest_repo' is not the project's",
        ),
        (lambda c: c["volumes"]["database_data"].update(external=True), "volume 'database_data' is not the project's"),
        (lambda c: c["networks"]["default"].update(name="platform", external=True), "network 'default' is not the"),
        (lambda c: c["services"]["database"].update(container_name="db"), "has the fixed container_name 'db'"),
        (lambda c: c["services"]["database"].update(ports=[{"published": "5432"}]), "'database' publishes port 5432"),
        (
            lambda c: c["volumes"]["pg_backrest_repo"].update(
                driver="local", driver_opts={"type": "none", "o": "bind", "device": "/srv/backups"}
            ),
            "volume 'pg_backrest_repo' lies elsewhere: /srv/backups",
        ),
        (lambda c: c["volumes"]["database_data"].update(driver="nfs"), "volume 'database_data' has the driver 'nfs'"),
        (lambda c: c["services"]["database"].update(network_mode="host"), "'database' has network_mode: host"),
        (lambda c: c["services"]["database"].update(network_mode="service:app"), "has network_mode: service:app"),
        (lambda c: c["services"]["database"].update(privileged=True), "'database' has privileged: True"),
        (lambda c: c["services"]["database"].update(pid="host"), "'database' has pid: host"),
        (lambda c: c["services"]["database"].update(volumes_from=["app"]), "'database' has volumes_from: ['app']"),
        (
            lambda c: c["services"]["database"]["volumes"].append(
                {"type": "bind", "source": "/srv/data", "target": "/data"}
            ),
            "service 'database' may write to /srv/data of this machine",
        ),
    ],
)
def test_one_that_shares_something_is_refused(change: Change, words: str) -> None:
    assert words in refusal(change)


@pytest.mark.parametrize(
    ("conf", "environment", "words"),
    [
        ("[global]\nrepo1-type=s3\n", {}, "repo1-type=s3"),
        ("[global]\nrepo1-path=/x\n", {"PGBACKREST_REPO2_TYPE": "azure"}, "repo2-type=azure"),
        ("[global]\nrepo1-host = backup.example\n", {}, "repo1-host=backup.example"),
        ("[iop]\npg1-host=db.example\n", {}, "pg1-host=db.example"),
        ("[global]\nrepo1-type=s3\n", {"PGBACKREST_REPO1_TYPE": "posix"}, None),
        ("#repo1-type=s3\n", {}, None),
    ],
)
def test_a_repository_elsewhere_is_refused(
    tmp_path: Path, conf: str, environment: dict[str, str], words: str | None
) -> None:
    (tmp_path / "pgbackrest.conf").write_text(conf)
    configuration = copy.deepcopy(GOOD)
    core = configuration["services"]["pgbackrest"]
    core["environment"] = {"PGBACKREST_CONFIG": "/pgbackrest/pgbackrest.conf", **environment}
    core["volumes"] = [{"type": "bind", "source": str(tmp_path), "target": "/pgbackrest", "read_only": True}]
    if words is None:
        refuse_harm(configuration, "iop-look", ComposeMapping(), "/srv/compose.yaml")
    else:
        with pytest.raises(UsageError, match=words):
            refuse_harm(configuration, "iop-look", ComposeMapping(), "/srv/compose.yaml")


def test_a_volume_in_memory_is_its_own() -> None:
    configuration = copy.deepcopy(GOOD)
    configuration["volumes"]["database_data"]["driver_opts"] = {"type": "tmpfs", "device": "tmpfs", "o": "size=64m"}
    configuration["services"]["pgbackrest"]["network_mode"] = "none"
    refuse_harm(configuration, "iop-look", ComposeMapping(), "/srv/compose.yaml")


def test_everything_that_is_shared_is_said_at_once() -> None:
    def change(configuration: dict[str, Any]) -> None:
        configuration["services"]["database"]["container_name"] = "db"
        configuration["networks"]["default"]["external"] = True

    message = refusal(change)
    assert "container_name" in message
    assert "network 'default'" in message


def test_variables_are_translated_and_others_kept() -> None:
    mapping = ComposeMapping(variables={"DATABASE_BACKUP_FREQUENCY": "BACKUP_EVERY"})
    assert mapping.translate({"DATABASE_BACKUP_FREQUENCY": "5", "IOP_READY_LIMIT": "9"}) == {
        "BACKUP_EVERY": "5",
        "IOP_READY_LIMIT": "9",
    }


def test_no_wrong_confirmation_is_the_right_one() -> None:
    wrong = wrong_confirmations(TOKEN)
    assert len(set(wrong)) == len(wrong) > 15
    assert all(words[:1] != (TOKEN,) for words in wrong)
    assert () in wrong
    assert any(TOKEN in words[1:] for words in wrong)  # in another place
