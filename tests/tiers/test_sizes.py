"""How many pages each tier gets, and what is refused or told of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from headway.core.errors import ConfigError
from headway.core.specs import EngineSpec, GroupSpec
from headway.worker.tiers import sizes
from headway.worker.tiers.counts import PageCounts
from headway.worker.tiers.sizes import tier_pages


def test_a_directory_that_is_not_there_or_tiers_that_cannot_be_are_refused_by_name(tmp_path: Path) -> None:
    spec = GroupSpec(replica_id="r", model_name="m", model_path="m")
    for fields, message in (
        ({"host_pages": -2}, "host_pages must be at least 0"),
        ({"disk_pages": 4}, "disk_pages = 4 needs kv_disk"),
        ({"kv_disk": str(tmp_path)}, "kv_disk needs host_pages above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            msgspec.structs.replace(spec, engine=EngineSpec(**fields)).check()
    engine = EngineSpec(host_pages=4, kv_disk=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="kv_disk: there is no directory"):
        tier_pages(8, 1024, engine, 1, torch.device("cpu"))
    with pytest.raises(ConfigError, match="host_pages = 4 does not fit"):
        tier_pages(8, 1 << 60, msgspec.structs.replace(engine, kv_disk=""), 1, torch.device("cpu"))
    assert tier_pages(8, 1024, EngineSpec(), 1, torch.device("cpu")) == PageCounts(8)
    assert tier_pages(8, 1024, EngineSpec(host_pages=4, kv_disk=str(tmp_path)), 1, torch.device("cpu")).disk > 0


def test_a_disk_without_room_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def pages(**engine: Any) -> PageCounts:
        spec = EngineSpec(host_pages=4, kv_disk=str(tmp_path), **engine)
        return tier_pages(8, 1024, spec, 2, torch.device("cpu"))

    space = SimpleNamespace(f_frsize=1024, f_blocks=100, f_bavail=40)
    monkeypatch.setattr(sizes.os, "statvfs", lambda directory: space)
    assert pages().disk == 10 and pages(disk_pages=50).disk == 50 and not caplog.records
    with pytest.raises(ConfigError, match=r"disk_pages = 51 does not fit: 2 x 52224 bytes, and .* has 102400"):
        pages(disk_pages=51)
    space.f_bavail = 3
    assert pages().disk == 0 and f"kv_disk: {tmp_path} has no room for pages" in caplog.text
