"""Reading an adapter on every rank of a group, beside the steps that go on."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ...core.errors import ConfigError, Refused, Unavailable
from ..adapters.revision import adapter_revision
from . import control
from .attachment import Attachment
from .followers import Followers

if TYPE_CHECKING:
    from ..adapters.rank import RankAdapters

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 120.0


class HasAdapters(Protocol):
    """A rank's runner."""

    @property
    def adapters(self) -> RankAdapters: ...


class AdapterLoader:
    """The leader's side: every rank reads, and only when all have done so is the adapter there."""

    def __init__(self, followers: Followers) -> None:
        self._followers = followers
        self._numbers = itertools.count(1)

    def next_number(self) -> int:
        """A number that no adapter of this group had."""
        return next(self._numbers)

    def revision(self, path: Path) -> str:
        """Digest of the adapter's files. Raises ConfigError."""
        return adapter_revision(path)

    def load(self, number: int, path: Path) -> tuple[str, int]:
        """Reads the adapter on all ranks under `number`; its revision and highest rank. Blocks for as long as it takes.

        Raises ConfigError for an adapter that a rank cannot use, Refused when the files changed meanwhile, Unavailable
        when a rank does not answer. Then ranks may hold it all the same: the number has to be forgotten.
        """
        self._followers.read_adapter(number, path)
        reads = self._followers.wait_adapter(number, READ_TIMEOUT_S)
        if len(reads) < len(self._followers.members):
            raise Unavailable(f"not every rank has read {path} within {READ_TIMEOUT_S:g} s", retry_after_s=5.0)
        errors = [read.error for read in reads if read.error]
        if errors:
            raise ConfigError(errors[0])
        if len({read.revision for read in reads}) > 1:
            raise Refused(f"{path} changed while the ranks read it", field="path")
        return reads[0].revision, max(read.highest_rank for read in reads)


def serve_reads(leader: Attachment, runner: HasAdapters, on_serving: Callable[[], None]) -> threading.Thread:
    """A follower's side: a thread that reads what the leader asks for until the connection ends, and calls `on_serving`
    when the leader says that it serves."""

    def serve() -> None:
        try:
            while (message := leader.receive()) is not None:
                if isinstance(message, control.Serving):
                    on_serving()
                elif isinstance(message, control.ReadAdapter):
                    leader.send(_read(runner.adapters, message.number, Path(message.path)))
        except OSError:
            return  # the leader is gone; whoever watches it ends this process

    thread = threading.Thread(target=serve, name="headway-adapters", daemon=True)
    thread.start()
    return thread


def _read(adapters: RankAdapters, number: int, path: Path) -> control.AdapterRead:
    """One rank's reading. Whatever goes wrong with an adapter's files must not end the group."""
    try:
        revision, highest = adapters.read(number, path)
    except ConfigError as error:
        return control.AdapterRead(number, error=str(error)[: control.MAX_MESSAGE // 8])
    except Exception as error:
        log.exception("reading the adapter in %s failed", path)
        return control.AdapterRead(number, error=f"{path} cannot be read: {type(error).__name__}: {error}"[:4096])
    return control.AdapterRead(number, revision, highest)
