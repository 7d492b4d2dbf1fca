"""The settings that move a paused server on to another target."""

from __future__ import annotations

import pytest

from pytest_iopbackup.cluster.standby import settings
from pytest_iopbackup.cluster.targets import By, Target


@pytest.mark.parametrize(
    ("target", "setting"),
    [
        (
            Target(by=By.TIME, value="2026-01-15T21:30:00.5Z"),
            ("recovery_target_time", "2026-01-15 21:30:00.500000+00:00"),
        ),
        (Target(by=By.LSN, value="0/3000028"), ("recovery_target_lsn", "0/3000028")),
        (Target(by=By.XID, value="749"), ("recovery_target_xid", "749")),
        (Target(by=By.NAME, value="it's"), ("recovery_target_name", "it's")),
        (Target(by=By.XID, value="749", exclusive=True), ("recovery_target_inclusive", "off")),
        (Target(by=By.XID, value="749"), ("recovery_target_inclusive", "on")),
        (Target(by=By.XID, value="749", timeline=2), ("recovery_target_timeline", "2")),
        (Target(by=By.XID, value="749"), ("recovery_target_timeline", "latest")),
        (Target(by=By.XID, value="749"), ("recovery_target_action", "pause")),
    ],
)
def test_a_target_is_set_and_every_other_kind_is_not(target: Target, setting: tuple[str, str]) -> None:
    found = settings(target)
    assert setting in found.items()
    kinds = {f"recovery_target_{by}" for by in ("time", "lsn", "xid", "name")}
    assert [name for name in kinds if found[name] is not None] == [f"recovery_target_{target.by.value}"]
