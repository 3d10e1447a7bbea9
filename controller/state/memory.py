"""The embedded store: memory, and a file when the state is to outlive the process."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from ...core.errors import ConfigError, Stale
from .values import DesiredState


class MemoryStore:
    """Holds the state in memory, and writes each commit whole to `path` if there is one."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises ConfigError when the file holds something else."""
        self._path = path
        self._state = DesiredState()
        if path is not None and path.exists():
            try:
                self._state = msgspec.json.decode(path.read_bytes(), type=DesiredState)
            except msgspec.DecodeError as error:
                raise ConfigError(f"{path} is no state file of a controller: {error}") from None

    async def load(self) -> DesiredState:
        return self._state

    async def commit(self, state: DesiredState) -> None:
        if state.revision != self._state.revision + 1:
            raise Stale(f"the state is at revision {self._state.revision}, not {state.revision - 1}")
        if self._path is not None:
            self._write(self._path, msgspec.json.encode(state))
        self._state = state

    async def close(self) -> None:
        return

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        # A crash between the two steps leaves the last whole state, never half a file.
        fresh = path.with_name(path.name + ".new")
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
