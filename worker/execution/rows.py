"""The persistent batch: what each rank knows about every row, changed by the diffs of step plans."""

from __future__ import annotations

from itertools import chain

import numpy as np
import numpy.typing as npt

from ..plan import NO_ADAPTER, SAMPLED, RowAdded, StepPlan
from .step_work import Int64, StepWork, step_work

Int32 = npt.NDArray[np.int32]
MINIMUM_ROWS = 16


class PlanError(RuntimeError):
    """A plan that contradicts the batch: the scheduler and this rank have diverged, and the group cannot go on."""


class Rows:
    """Tokens and block tables of the live rows, in arrays that grow by doubling.

    tokens: [rows, capacity] int32, known[row] of them; tables: [rows, width] int32, pages[row] of them.
    adapters: [rows] int32, the slot of each row's adapter. pooling: of the rows that are there for an embedding.
    work: of the plan that was applied last.
    """

    def __init__(self, page_size: int, total_pages: int, vocab_size: int) -> None:
        self.page_size = page_size
        self.total_pages = total_pages
        self.vocab_size = vocab_size
        self.tokens: Int32 = np.zeros((MINIMUM_ROWS, 256), np.int32)
        self.tables: Int32 = np.zeros((MINIMUM_ROWS, 16), np.int32)
        self.known: Int32 = np.zeros(MINIMUM_ROWS, np.int32)
        self.pages: Int32 = np.zeros(MINIMUM_ROWS, np.int32)
        self.adapters: Int32 = np.full(MINIMUM_ROWS, NO_ADAPTER, np.int32)
        self.live: npt.NDArray[np.bool_] = np.zeros(MINIMUM_ROWS, np.bool_)
        self.pooling: dict[int, int] = {}
        self.work = step_work(())

    @property
    def special(self) -> bool:
        """Whether any row of the last plan's work runs with an adapter, or any live one is there for an embedding."""
        return bool(self.pooling) or bool((self.adapters[self.work.row] != NO_ADAPTER).any())

    def apply(self, plan: StepPlan, last: Int64 | None = None) -> None:
        """All of the plan's diffs, in the order that the plan promises. `last` holds the token that each row got last,
        where the host knows it. Raises PlanError."""
        for row in plan.freed:
            self._expect(row)
            self.live[row] = False
            self.pooling.pop(row, None)
        for added in plan.added:
            self._add(added)
        if plan.appended:
            self._append(plan.appended)
        decodes = np.frombuffer(plan.decodes, "<u4").astype(np.int64)
        if len(decodes):
            self._expect_all(decodes)
            self._append_tokens(decodes, SAMPLED if last is None else last[decodes])
        for row, page in plan.grown:
            self._take_pages(row, [page])
        for work in plan.work:
            if work.new_pages:
                self._take_pages(work.row, work.new_pages)
        items = step_work(plan.work)
        self._check(items)
        self.work = items if not len(decodes) else items.before(self._decoding(decodes))

    def _expect(self, row: int) -> None:
        if not 0 <= row < len(self.live) or not self.live[row]:
            raise PlanError(f"row {row} is not in the batch")

    def _add(self, added: RowAdded) -> None:
        row = added.row
        tokens = np.frombuffer(added.tokens, "<u4")
        if row < 0 or (row < len(self.live) and self.live[row]):
            raise PlanError(f"row {row} is taken")
        if len(tokens) == 0 or tokens.max() >= self.vocab_size:
            raise PlanError(f"row {row}: token ids must be below {self.vocab_size}, and one at least")
        self._check_pages(row, added.pages)
        self._grow(row + 1, len(tokens), len(added.pages))
        self.tokens[row, : len(tokens)] = tokens
        self.known[row] = len(tokens)
        self.tables[row, : len(added.pages)] = added.pages
        self.pages[row] = len(added.pages)
        self.adapters[row] = added.adapter
        self.live[row] = True
        if added.pooling:
            self.pooling[row] = added.pooling

    def _append(self, appended: list[tuple[int, int]]) -> None:
        """Tokens that rows go on with."""
        if len(dict(appended)) < len(appended):  # some rows with several
            for pair in appended:
                self._append([pair])
            return
        rows, tokens = np.fromiter(chain.from_iterable(appended), np.int64, 2 * len(appended)).reshape(-1, 2).T
        self._expect_all(rows)
        self._append_tokens(rows, tokens)

    def _append_tokens(self, rows: Int64, tokens: Int64 | int) -> None:
        """One for each of `rows`, all of them there and different."""
        known = self.known[rows]
        if (longest := int(known.max())) == self.tokens.shape[1]:
            self._grow(0, longest + 1, 0)
        self.tokens[rows, known] = tokens
        self.known[rows] = known + 1

    def _decoding(self, rows: Int64) -> StepWork:
        """The work on each one's last token. Raises PlanError where a row has no page for it."""
        known = self.known[rows]
        if (outside := known > self.pages[rows] * self.page_size).any():
            at = int(outside.argmax())
            self._refuse_pages(int(rows[at]), int(known[at]))
        return StepWork(rows, known.astype(np.int64) - 1, np.ones_like(rows), np.ones(len(rows), np.bool_))

    def _refuse_pages(self, row: int, end: int) -> None:
        raise PlanError(f"row {row}: {end} tokens do not fit {self.pages[row]} pages of {self.page_size}")

    def _take_pages(self, row: int, pages: list[int]) -> None:
        self._expect(row)
        self._check_pages(row, pages)
        held = int(self.pages[row])
        self._grow(row + 1, 0, held + len(pages))
        self.tables[row, held : held + len(pages)] = pages
        self.pages[row] = held + len(pages)

    def _check(self, work: StepWork) -> None:
        if not len(work.row):
            return
        self._expect_all(work.row)
        known, held, end = self.known[work.row], self.pages[work.row], work.end
        sampling = end == known
        if self.pooling:
            sampling &= ~np.isin(work.row, list(self.pooling))
        wrong = (work.count < 1) | (end > known) | (work.sample != sampling)
        if wrong.any():
            at = int(wrong.argmax())
            raise PlanError(
                f"row {work.row[at]}: work on [{work.computed[at]}, {end[at]}), sample {work.sample[at]}, "
                f"but {known[at]} tokens known"
            )
        if (outside := end > held * self.page_size).any():
            at = int(outside.argmax())
            self._refuse_pages(int(work.row[at]), int(end[at]))

    def _expect_all(self, rows: Int64) -> None:
        if int(rows.min()) < 0 or int(rows.max()) >= len(self.live) or not self.live[rows].all():
            for row in rows.tolist():
                self._expect(row)

    def _check_pages(self, row: int, pages: list[int]) -> None:
        if pages and not 0 <= min(pages) <= max(pages) < self.total_pages:
            raise PlanError(f"row {row}: pages {min(pages)} to {max(pages)} are not all among the {self.total_pages}")

    def _grow(self, rows: int, tokens: int, pages: int) -> None:
        self.tokens = _grown(self.tokens, rows, tokens)
        self.tables = _grown(self.tables, rows, pages)
        if rows > len(self.live):
            extra = len(self.tokens) - len(self.live)
            self.known, self.pages = np.pad(self.known, (0, extra)), np.pad(self.pages, (0, extra))
            self.live = np.pad(self.live, (0, extra))
            self.adapters = np.pad(self.adapters, (0, extra), constant_values=NO_ADAPTER)


def _grown(array: Int32, rows: int, columns: int) -> Int32:
    have_rows, have_columns = array.shape
    if rows <= have_rows and columns <= have_columns:
        return array
    shape = (_doubled(have_rows, rows), _doubled(have_columns, columns))
    larger = np.zeros(shape, array.dtype)
    larger[:have_rows, :have_columns] = array
    return larger


def _doubled(have: int, need: int) -> int:
    while have < need:
        have *= 2
    return have
