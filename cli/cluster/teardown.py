"""Ends a cluster from outside: through its supervisor when that lives, without it when it does not."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from .files import Files, Record
from .processes import Identity, alive, boot_id, family, marked, send, wait_gone

STOP_S = 30.0
KILL_S = 5.0


def running(files: Files) -> Record | None:
    """The record of the cluster whose supervisor lives."""
    record = files.read_record()
    if record is not None and record.boot_id == boot_id() and alive(record.supervisor):
        return record
    return None


def take_down(files: Files) -> bool:
    """Ends what runs here, and returns when nothing of it is left; False when nothing ran."""
    record = running(files)
    if record is None:
        return clean_up_after(files)
    members = _members(record)
    send([record.supervisor], signal.SIGTERM)
    wait_gone({*members, record.supervisor}, STOP_S)
    _kill_and_strike(files, record, members)
    return True


def clean_up_after(files: Files) -> bool:
    """Ends what a supervisor that was killed has left: processes, files, Ray's directory. False when there was none."""
    record = files.read_record()
    if record is None:
        files.remove()
        return False
    _kill_and_strike(files, record, set())
    return True


def _kill_and_strike(files: Files, record: Record, members: set[Identity]) -> None:
    if record.boot_id == boot_id():
        left = [process for process in members | _members(record) if alive(process)]
        send(left, signal.SIGKILL)
        wait_gone(left, KILL_S)
    folder = Path(record.temp_dir)
    if record.temp_dir and folder.name.startswith("headway-"):
        shutil.rmtree(folder, ignore_errors=True)
    files.remove()


def _members(record: Record) -> set[Identity]:
    """Everything that is certainly of this cluster: recorded and the same still, below that, or marked with its id."""
    recorded = [process for process in (record.supervisor, *record.processes) if alive(process)]
    below = [each for process in recorded for each in family(process.pid)]
    # The reaper, which does this too, is of the cluster itself.
    return {process for process in (*recorded, *below, *marked(record.cluster_id)) if process.pid != os.getpid()}
