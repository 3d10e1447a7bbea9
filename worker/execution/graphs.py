"""Decode steps captured for some numbers of rows, and replayed for all: the host then launches one thing a step.

A step in which every row computes one token and samples is padded up to the next captured number of rows. What to
capture, and when, follows from the plans alone, so that all ranks of a group do it in the same step. It begins after
the group is ready: while there is nothing to do, a few at each ping, the biggest first; under load, now and then, what
was just missed; steps with adapters once the first of them was seen. Until then, and for all other steps, each
operation is launched by itself.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...kernels.attention_decode import MOST_PARTS, SPLIT, parts_for
from ...kernels.grouped_lora_tiles import lora_tiles, most_tiles
from ...kernels.paged_attention import plan_decode
from ..adapters.segments import TiledSegments
from ..model.inputs import StepInputs
from ..plan import NO_ADAPTER
from .decode_buffers import NOBODY, DecodeBuffers, Int32, decode_rows, padded
from .replay import Replayer, Step
from .transfer import Array

if TYPE_CHECKING:
    from .runner import Runner

log = logging.getLogger(__name__)

PARTS = (4, 16, MOST_PARTS)  # programs that attention has for one row: what captured steps differ in, beside rows
CAPTURES_A_PING = 2
STEPS_BEFORE = 16  # decode steps seen before one of them is held up by a capture: those before Ready are fewer
STEPS_BETWEEN = 64
NO_ADAPTERS = np.empty(0, np.int32)


class Shape(NamedTuple):
    """What is fixed in a captured step. The rows' contexts may be as long as `parts` programs reach. With
    `adapted` they may run with adapters, which costs launches that others are spared."""

    rows: int
    parts: int
    adapted: bool = False

    def serves(self, other: Shape) -> bool:
        """Whether it may run in the other's place, without too many rows that nobody wants."""
        if self.adapted != other.adapted:
            return False
        return other.rows <= self.rows <= max(2 * other.rows, other.rows + 8) and other.parts <= self.parts


def sizes(most: int) -> list[int]:
    """Numbers of rows that steps are padded to: 1, 2, 4, and the multiples of 8 up to `most`, itself among them."""
    return sorted({size for size in (1, 2, 4, *range(8, most, 8)) if size < most} | {most})


def parts_up_to(max_context: int) -> list[int]:
    """The entries of PARTS that contexts of up to `max_context` tokens need."""
    needed = parts_for(max_context)
    return [parts for index, parts in enumerate(PARTS) if index == 0 or PARTS[index - 1] < needed]


class DecodeGraphs:
    """The captured steps of a runner whose cache has spare pages from `scratch_page` on, slots for `most` rows."""

    def __init__(self, runner: Runner, replayer: Replayer, most_bytes: int, scratch_page: int) -> None:
        engine = runner.spec.engine
        self._runner = runner
        self._replayer = replayer
        self._most_bytes = most_bytes
        self._scratch = scratch_page
        self._max_context = runner.info.max_context_tokens
        self.most = engine.max_sequences
        self._sizes, self._parts = sizes(self.most), parts_up_to(self._max_context)
        self._slots = engine.max_adapters
        width, tiles = -(-self._max_context // engine.page_size), most_tiles(self.most, self._slots)
        self._buffers = DecodeBuffers(self.most, width, tiles, runner.device)
        self._every = torch.arange(self.most, device=runner.device)
        # All captured steps leave their result here: with memory of its own each would keep a part of the common pool.
        shape = (self.most, runner.config.hidden_size)
        self._hidden = torch.zeros(shape, dtype=runner.dtype, device=runner.device)
        self._line = self._shapes(adapted=False)
        self._adapted, self._closed = False, False  # whether adapters were seen, and whether nothing more is captured
        self.captured: dict[Shape, Step] = {}
        self._seen = 0
        self._last_capture = -STEPS_BETWEEN

    @property
    def left(self) -> int:
        """Steps that are still to be captured."""
        return len(self._line)

    def suits(self) -> bool:
        """Whether every row of the plan applied last computes one token and samples, with adapters where these go by
        tiles."""
        work = self._runner.rows.work
        if len(work.row) > self.most or not (work.sample & (work.count == 1)).all():
            return False
        return isinstance(self._runner.adapters.segments, TiledSegments) or not self._adapters()[1]

    def run(self, carried: list[Array]) -> tuple[Tensor | None, list[Tensor]] | None:
        """Logits of a step that suits, in the plan's order (None on ranks that do not sample), and `carried` on the
        device; None where nothing captured serves it."""
        found = decode_rows(self._runner.rows)
        count = len(found.positions)
        adapters, adapted = self._adapters()
        wanted = self._shape(count, int(found.lengths.max()), adapted)
        self._seen += 1
        if adapted and not self._adapted:
            self._adapted = True
            self._line += [] if self._closed else self._shapes(adapted=True)
        shape = self._serving(wanted)
        if shape is None and self._may_capture():
            self._capture(wanted)
            shape = self._serving(wanted)
        if shape is None:
            return None
        page_size = self._runner.rows.page_size
        rows = padded(found, shape.rows, page_size, self._scratch)
        moved = self._buffers.fill(rows, carried, self._tiles(adapters, shape))
        hidden = self.captured[shape]()
        return self._runner.model.logits(hidden[:count]), moved

    def idle(self) -> None:
        """Called for plans without work: captures the biggest steps that are not yet."""
        if self._seen:
            for shape in self._line[:CAPTURES_A_PING]:
                self._capture(shape)

    def _adapters(self) -> tuple[Int32, bool]:
        """The slot of each item's adapter, and whether there is any."""
        slots = self._runner.rows.adapters[self._runner.rows.work.row]
        return slots, bool((slots != NO_ADAPTER).any())

    def _tiles(self, adapters: Int32, shape: Shape) -> Int32 | None:
        """As many as the captured step goes through, whatever the step before left; None for one without."""
        return lora_tiles(adapters, most_tiles(shape.rows, self._slots)) if shape.adapted else None

    def _shapes(self, *, adapted: bool) -> list[Shape]:
        """Biggest first."""
        return [Shape(size, parts, adapted) for size in reversed(self._sizes) for parts in reversed(self._parts)]

    def _shape(self, rows: int, longest: int, adapted: bool) -> Shape:
        size = next(size for size in self._sizes if size >= rows)
        return Shape(size, next(parts for parts in self._parts if parts >= parts_for(longest)), adapted)

    def _serving(self, wanted: Shape) -> Shape | None:
        if wanted in self.captured:
            return wanted
        return min((shape for shape in self.captured if shape.serves(wanted)), default=None)

    def _may_capture(self) -> bool:
        late_enough = self._seen > STEPS_BEFORE and self._seen >= self._last_capture + STEPS_BETWEEN
        return bool(self._line) and late_enough

    def _capture(self, shape: Shape) -> None:
        """All ranks come here in the same step, and agree whether there is to be another."""
        if shape not in self._line:
            return
        self._line.remove(shape)
        self._last_capture = self._seen
        nobody = padded(NOBODY, shape.rows, self._runner.rows.page_size, self._scratch)
        self._buffers.fill(nobody, tiles=self._tiles(NO_ADAPTERS, shape))
        step: Step | None = None
        try:
            step = self._replayer.capture(lambda: self._step(shape))
        except RuntimeError as error:
            log.warning("a decode step of %d rows could not be captured: %s", shape.rows, error)
        if self._anybody(step is None):
            self._close()
            return
        assert step is not None
        self.captured[shape] = step
        if self._anybody(self._replayer.bytes > self._most_bytes):
            log.info("%d decode steps are captured, in %d MiB", len(self.captured), self._replayer.bytes >> 20)
            self._close()

    def _close(self) -> None:
        self._closed = True
        self._line.clear()

    def _anybody(self, mine: bool) -> bool:
        """Whether it is so on any rank."""
        runner = self._runner
        if runner.comm.place.world_size == 1:
            return mine
        return bool(runner.comm.all_reduce(torch.tensor([float(mine)], device=runner.device)).item())

    def _step(self, shape: Shape) -> Tensor:
        """A decode step over the buffers, up to the hidden states; nothing in it depends on what they hold."""
        runner, views = self._runner, self._buffers.views(shape.rows)
        segments = runner.adapters.segments
        if shape.adapted:
            assert isinstance(segments, TiledSegments), "no other step with adapters suits"
            segments.follow(self._buffers.tiles[: most_tiles(shape.rows, self._slots)])
        elif segments is not None:
            segments.begin(np.full(shape.rows, NO_ADAPTER, np.int32), np.arange(shape.rows))
        longest = self._max_context if shape.parts == MOST_PARTS else min(shape.parts * SPLIT, self._max_context)
        attention = {
            window: plan_decode(
                self._buffers.tables[: shape.rows], views.lengths, runner.rows.page_size,
                longest=longest, dtype=runner.dtype, window=window, invariant=runner.invariant,
            )
            for window in runner.model.windows
        }  # fmt: skip
        token_ids = runner.last.filled(views.token_ids, views.drawn)
        every = self._every[: shape.rows]
        inputs = StepInputs(token_ids, views.positions, views.slots, attention, every, segments)
        hidden = runner.model.forward(inputs, runner.caches)
        assert hidden is not None, "captured where there is one stage"
        return self._hidden[: shape.rows].copy_(hidden)
