"""Writes step plans by hand: rows, pages and the tokens that each row goes on with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rank_group import PAGE_SIZE, RankGroup

from headway.core.sampling import SamplingParams
from headway.core.specs import EngineSpec
from headway.worker.plan import NO_ADAPTER, NO_RULES, PlaceLogprobs, RowAdded, RowWork, StepPlan

GREEDY = SamplingParams(temperature=0.0)


Place = tuple[np.ndarray, np.ndarray]


def unpacked(part: PlaceLogprobs) -> list[Place]:
    """(ids, values) of each place."""
    ids = np.frombuffer(part.ids, "<u4").reshape(-1, part.width)
    return list(zip(ids, np.frombuffer(part.values, "<f4").reshape(-1, part.width), strict=True))


@dataclass
class Row:
    """One sequence as the script sees it."""

    tokens: list[int]
    prompt: int
    pages: list[int]
    sampling: SamplingParams
    computed: int = 0
    fresh: bool = True
    adapter: int = NO_ADAPTER
    logits: list[np.ndarray] = field(default_factory=list)
    tops: tuple[int, int] = (-1, -1)
    logprobs: list[Place] = field(default_factory=list)
    prompt_logprobs: list[Place] = field(default_factory=list)
    pooling: int = 0
    embedding: np.ndarray | None = None

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt :]


class Script:
    """Rows of one group. `turn` computes the given number of tokens for each row named, in the order given."""

    def __init__(self, group: RankGroup, pages: int = 64) -> None:
        self.group = group
        self.free_pages = list(range(pages))[::-1]
        self.rows: dict[int, Row] = {}
        self.freed: list[int] = []
        self.appended: list[tuple[int, int]] = []
        self.adapters: list[tuple[int, int]] = []
        self.step = 0

    def add(
        self,
        row: int,
        tokens: list[int],
        sampling: SamplingParams = GREEDY,
        prompt: int | None = None,
        shared: list[int] | None = None,
        tops: tuple[int, int] = (-1, -1),
        pooling: int = 0,
        adapter: int = NO_ADAPTER,
    ) -> Row:
        """A sequence enters; KV of `shared` pages is there already. `tops` are its logprobs and prompt_logprobs."""
        pages = list(shared or [])
        length = len(tokens) if prompt is None else prompt
        made = Row(list(tokens), length, pages, sampling, len(pages) * PAGE_SIZE, tops=tops, pooling=pooling)
        made.adapter = adapter
        self.rows[row] = made
        return made

    def free(self, row: int, keep_pages: bool = False) -> None:
        """A sequence leaves; its pages can be taken again at once."""
        gone = self.rows.pop(row)
        if not gone.fresh:
            self.freed.append(row)
        self.appended = [item for item in self.appended if item[0] != row]
        if not keep_pages:
            self.free_pages += gone.pages

    def remaining(self, row: int) -> int:
        """Known tokens that are not computed."""
        return len(self.rows[row].tokens) - self.rows[row].computed

    def turn(self, counts: dict[int, int]) -> None:
        """One step. Sampled tokens are known to the row from the next step on."""
        added, work = [], []
        for index, count in counts.items():
            row = self.rows[index]
            start = row.computed
            missing = -(-(start + count) // PAGE_SIZE) - len(row.pages)
            new_pages = [self.free_pages.pop() for _ in range(missing)]
            if row.fresh:  # half of the pages come with the row, the rest with its work
                first, new_pages = new_pages[: len(new_pages) // 2], new_pages[len(new_pages) // 2 :]
                row.pages += first
                tokens = np.array(row.tokens, "<u4").tobytes()
                common = (index, tokens, row.prompt, start, list(row.pages), row.sampling)
                added.append(RowAdded(*common, 0, NO_RULES, *row.tops, row.pooling, row.adapter))
                row.fresh = False
            row.pages += new_pages
            row.computed += count
            sample = row.computed == len(row.tokens) and not row.pooling
            work.append(RowWork(index, start, count, sample, new_pages))
        plan = StepPlan(self.step, self.freed, added, self.appended, work, adapters=self.adapters)
        self.step, self.freed, self.appended, self.adapters = self.step + 1, [], [], []
        result, logits = self.group.step(plan)
        chosen = result.token_ids
        for kind, parts in (("logprobs", result.logprobs), ("prompt_logprobs", result.prompt_logprobs)):
            for index, part in parts:
                getattr(self.rows[index], kind).extend(unpacked(part))
        done = [item.row for item in work if self.rows[item.row].pooling and not self.remaining(item.row)]
        assert [index for index, _ in result.pooled] == done
        for index, embedding in result.pooled:
            self.rows[index].embedding = np.frombuffer(embedding, "<f4")
        sampled = [item.row for item in work if item.sample]
        assert len(chosen) == len(sampled)
        for position, (index, token) in enumerate(zip(sampled, chosen, strict=True)):
            self.rows[index].tokens.append(token)
            self.appended.append((index, token))
            if logits is not None:
                self.rows[index].logits.append(logits[position])

    def finish(self, count: int, chunk: int = 1000) -> None:
        """Steps until every row has `count` output tokens, in chunks of at most `chunk`."""
        while True:
            counts = {
                index: min(chunk, len(row.tokens) - row.computed)
                for index, row in self.rows.items()
                if len(row.output) < count
            }
            if not counts:
                return
            self.turn(counts)


def generated(group: RankGroup, model: Path, engine: EngineSpec, dtype: str = "float32") -> Script:
    """Prompts in chunks, then all rows together."""
    vocab = group.load(model, engine=engine, dtype=dtype)[0].vocab_size
    script = Script(group)
    draw = np.random.default_rng(5)
    for index, size in enumerate((1, 8, 17, 40)):
        script.add(index, draw.integers(2, vocab, size).tolist())
    script.finish(6, chunk=13)
    return script
