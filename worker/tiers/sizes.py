"""How many pages each tier has."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import psutil
import torch

from ...core.errors import ConfigError
from ...core.specs import EngineSpec
from .counts import PageCounts

log = logging.getLogger(__name__)

HOST_SHARE = 0.25  # of the memory that is available when a group starts, for all of its ranks
HOST_TIMES = 8  # more host pages than so many times the device's serve little
DISK_SHARE = 0.5  # of the space that is free when a group starts, for all of its ranks


def tier_pages(
    device_pages: int, bytes_per_page: int, engine: EngineSpec, ranks: int, device: torch.device
) -> PageCounts:
    """What one rank of `ranks` on this machine has room for. Raises ConfigError for more than there can be."""
    host = engine.host_pages
    if host < 0:
        room = int(psutil.virtual_memory().available * HOST_SHARE) // ranks // bytes_per_page
        host = min(room, HOST_TIMES * device_pages) if device.type == "cuda" else 0
    elif host * bytes_per_page * ranks > (total := psutil.virtual_memory().total):
        raise ConfigError(
            f"host_pages = {host} does not fit: {ranks} x {host * bytes_per_page} bytes, and the machine has {total}"
        )
    return PageCounts(device_pages, host, _disk_pages(bytes_per_page, engine, ranks) if host else 0)


def _disk_pages(bytes_per_page: int, engine: EngineSpec, ranks: int) -> int:
    if not engine.kv_disk:
        return 0
    directory = Path(engine.kv_disk)
    if not directory.is_dir():
        raise ConfigError(f"kv_disk: there is no directory {directory}")
    space = os.statvfs(directory)
    size, total = bytes_per_page * ranks, space.f_blocks * space.f_frsize
    if engine.disk_pages * size > total:
        taken = engine.disk_pages * bytes_per_page
        raise ConfigError(
            f"disk_pages = {engine.disk_pages} does not fit: {ranks} x {taken} bytes, and {directory} has {total}"
        )
    pages = engine.disk_pages or int(space.f_bavail * space.f_frsize * DISK_SHARE) // size
    if not pages:  # no reason not to serve
        log.error("kv_disk: %s has no room for pages: going on without it", directory)
    return pages
