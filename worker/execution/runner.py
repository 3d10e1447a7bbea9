"""One rank: applies step plans to its persistent batch and runs its slice of the model."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.specs import GroupSpec
from ...kernels.attention_choice import choose, keep_own
from ...kernels.attention_prefill import tile_queries
from ...kernels.attention_ways import AttentionShape
from ..adapters.rank import RankAdapters
from ..model.inputs import LayerCache, StepInputs
from ..model.linear import Products
from ..model.registry import load_model, read_config
from ..parallel.communicator import Communicator
from ..plan import SAMPLED, StepPlan, StepResult
from ..sampling.sampler import Sampler
from ..tiers.counts import PageCounts
from ..tiers.rank import RankTiers
from ..tiers.sizes import tier_pages
from .batch import build_inputs
from .device_steps import DeviceSteps
from .graphs import DecodeGraphs
from .info import ModelInfo
from .kv_cache import allocate_cache, choose_kv_dtype
from .last_tokens import LastTokens
from .launched import Finished, Launched
from .memory import suggested_pages
from .model_info import choose_dtype, read_model_info
from .pooling import Pooler, pooled_parts
from .profile import step_bytes
from .program import Outputs, Program, program_of
from .replay import CudaReplayer, Replayer
from .rows import Rows
from .scoring import Places, RowLogprobs, Scoring, score_prompts

log = logging.getLogger(__name__)


class Runner:
    """Loads on construction; `allocate`, then `launch` for each plan, in order, on every rank alike.

    On a device `launch` waits for nothing: the next plan may be launched before the last one's result is collected, and
    its `appended` may say SAMPLED for tokens that only the device knows. On CPU a step is over when `launch` returns.
    """

    def __init__(self, spec: GroupSpec, comm: Communicator, on_progress: Callable[[float], None]) -> None:
        """Reads configuration and weights; `on_progress` gets 0 to 1. Raises ConfigError for a model that cannot be
        served as `spec` says."""
        if spec.device == "cpu":
            # One thread a rank unless told otherwise: several of them and a busy neighbour cost a thousandfold.
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.spec = spec
        self.comm = comm
        self.device = comm.device
        path = Path(spec.model_path)
        self.info: ModelInfo = read_model_info(path, spec, comm.place)
        self.config = read_config(path).served(self.info.max_context_tokens)
        self.dtype = choose_dtype(self.config, spec.device, spec.dtype)
        self.invariant = self.info.batch_invariant
        if self.invariant:
            comm.order_sums()
        with torch.inference_mode():
            self.model = load_model(
                path, self.config, comm, self.dtype, self.device, on_progress,
                load_format=spec.load_format, products=Products(self.invariant, spec.engine.weight_dtype == "int8"),
            )  # fmt: skip
        self.adapters = RankAdapters(
            self.model.sites,
            layers=self.config.layers,
            slots=spec.engine.max_adapters,
            max_rank=spec.engine.max_lora_rank,
            dtype=torch.float32 if spec.device == "cpu" else self.dtype,
            device=self.device,
        )
        self.rows = Rows(spec.engine.page_size, 0, self.config.vocab_size)
        self.sampler = Sampler(self.config.vocab_size, self.device) if comm.place.is_sampler else None
        self.pooler = Pooler()
        self.total_pages = 0
        self.tiers: RankTiers | None = None
        self.program: Program | None = None
        self.scoring = Scoring()
        split = self.model.split
        self.queries_a_tile = tile_queries(split.heads.size, split.kv_heads.size, self.config.head_dim)
        self.caches: list[LayerCache] = []
        self.last = LastTokens(spec.engine.max_sequences, comm)
        self.on_device: DeviceSteps | None = DeviceSteps(self) if self.device.type == "cuda" else None
        self.replayer: Replayer | None = None
        if self.device.type == "cuda" and spec.engine.graph_mib and comm.place.pp == 1:
            self.replayer = CudaReplayer(self.device)
        if self.invariant:
            keep_own()
        elif self.device.type == "cuda":
            self._choose_attention()

    def _choose_attention(self) -> None:
        engine, heads, kv_heads = self.spec.engine, self.model.split.heads.size, self.model.split.kv_heads.size
        kv_dtype, captured = choose_kv_dtype(engine.kv_dtype, self.dtype), self.replayer is not None
        size = engine.page_size
        shape = AttentionShape(heads, kv_heads, self.config.head_dim, size, self.dtype, kv_dtype, captured)
        with torch.inference_mode():
            choose(shape, self.device)

    def suggested_pages(self) -> int:
        """Pages that this rank has memory for. The group uses the least of its ranks'; `spec.engine.total_pages`
        overrides. On CUDA it runs the largest steps to find out, and every rank has to call."""
        engine, info = self.spec.engine, self.info
        if engine.total_pages:
            return engine.total_pages
        taken = step_bytes(self) if self.device.type == "cuda" else 0
        pages = suggested_pages(
            info.kv_bytes_per_page, info.max_context_tokens, engine, self.spec.world_size, self.device, taken
        )
        if taken:
            log.info("the largest step takes %d MiB: room for %d pages of KV", taken >> 20, pages)
        return pages

    def room(self) -> PageCounts:
        """Pages on the device and in each tier that this rank has room for. Raises ConfigError."""
        pages, size = self.suggested_pages(), self.info.kv_bytes_per_page
        return tier_pages(pages, size, self.spec.engine, self.spec.world_size, self.device)

    def allocate(
        self,
        total_pages: int,
        host_pages: int = 0,
        disk_pages: int = 0,
        report: Callable[[int], None] = lambda word: None,
    ) -> None:
        """Makes the KV cache and the tiers below it, whose disk tells `report` how far it is (tiers/disk.py). Raises
        ConfigError when they do not fit."""
        with torch.inference_mode():
            engine, split = self.spec.engine, self.model.split
            kv_dtype = choose_kv_dtype(engine.kv_dtype, self.dtype)
            spare = 0 if self.replayer is None else -(-engine.max_sequences // engine.page_size)
            pages = total_pages + spare
            self.caches = allocate_cache(self.config, split, pages, engine.page_size, kv_dtype, self.device)
            if host_pages:
                caches = [tensor for layer in self.caches for tensor in layer.tensors()]
                counts = PageCounts(total_pages, host_pages, disk_pages)
                self.tiers = RankTiers(caches, counts, self.spec.engine.kv_disk, report)
        self.rows = Rows(engine.page_size, total_pages, self.config.vocab_size)
        self.total_pages = total_pages
        if self.on_device is not None and self.replayer is not None:
            self.on_device.graphs = DecodeGraphs(self, self.replayer, engine.graph_mib << 20, total_pages)
        if self.device.type == "cpu":
            self.program = program_of(self.model, self.caches)

    def step(self, plan: StepPlan) -> StepResult | None:
        """Applies one plan and waits for it. The sampling rank returns the result, the others None. Raises what
        `launch` and `collect` raise."""
        return self.launch(plan).collect()

    def launch(self, plan: StepPlan) -> Launched:
        """Applies one plan and begins its work. Raises PlanError for a plan that contradicts the batch, RankLost when
        another rank does not take part."""
        plan = self._with_tokens(plan)
        if plan.moves is not None:
            assert self.tiers is not None, "without tiers no plan has moves"
            with torch.inference_mode():
                self.tiers.apply(plan.moves)
        self.adapters.apply(plan.adapters)
        self.rows.apply(plan, self.last.ids.numpy() if self.on_device is None else None)
        self.scoring.apply(plan)
        if self.sampler is not None:
            self._track(self.sampler, plan)
        if plan.idle:
            if self.on_device is not None:
                with torch.inference_mode():
                    self.on_device.idle()
            return Finished(None if self.sampler is None else StepResult(plan.step, []))
        with torch.inference_mode():
            return Finished(self._run(plan)) if self.on_device is None else self.on_device.launch(plan)

    def _with_tokens(self, plan: StepPlan) -> StepPlan:
        """The plan, where SAMPLED is left only for tokens that the host does not know."""
        if not plan.decodes and all(token != SAMPLED for _, token in plan.appended):
            return plan
        self.last.share()
        return self.last.resolved(plan) if self.on_device is None else plan

    def _run(self, plan: StepPlan) -> StepResult | None:
        """A step with work, on CPU."""
        places = self.scoring.places(plan.work)
        sampled = int(np.count_nonzero(self.rows.work.sample))
        if self.program is not None and not places and not self.rows.special:
            start = time.perf_counter()
            hidden, logits = self.program.run_rows(self.rows)
        else:
            inputs, _ = build_inputs(
                self.rows,
                plan.work,
                places,
                self.model.windows,
                self.device,
                self.dtype,
                self.queries_a_tile,
                self.adapters.segments,
                invariant=self.invariant,
            )
            start = time.perf_counter()
            hidden, logits = self._compute(inputs, sampled)
        seconds = time.perf_counter() - start
        scored, pooled = self.prompts(hidden, sampled, places, plan)
        if self.sampler is None:
            return None
        tokens, logprobs = ([], []) if logits is None else self._sample(self.sampler, logits, plan)
        return StepResult(plan.step, tokens, seconds, logprobs, scored, pooled)

    def _compute(self, inputs: StepInputs, sampled: int) -> Outputs:
        """Hidden states of the wanted tokens, and logits of the first `sampled` of them, each where they are."""
        if self.program is not None and self.program.takes(inputs):
            return self.program.run(inputs, sampled)
        hidden = self.model.forward(inputs, self.caches)
        return hidden, self.model.logits(hidden[:sampled]) if hidden is not None and sampled else None

    def prompts(
        self, hidden: Tensor | None, start: int, places: list[Places], plan: StepPlan
    ) -> tuple[RowLogprobs, list[tuple[int, bytes]]]:
        """What the hidden states after the first `start` give: log probabilities at `places`, then embeddings."""
        if hidden is None:
            return [], []
        if not places and not self.rows.pooling:
            return [], []
        end = start + sum(place.length for place in places)
        scored = score_prompts(self.model.logits, hidden[start:end], places, self.rows) if places else []
        parts = pooled_parts(self.rows, plan.work) if self.sampler is not None else []
        return scored, self.pooler.take(parts, hidden[end:]) if parts else []

    def _sample(self, sampler: Sampler, logits: Tensor, plan: StepPlan) -> tuple[list[int], RowLogprobs]:
        work = self.rows.work
        at = work.row[work.sample]
        rows, positions = at.tolist(), work.end[work.sample].tolist()
        kept = self.scoring.keep(logits, rows)
        tokens = sampler.sample(logits, rows, positions, plan.masks)
        self.last.note_now(at, tokens)
        return tokens, [] if kept is None else kept.score(rows, tokens)

    def close(self) -> None:
        """Lets go of the cache and leaves the group."""
        if self.tiers is not None:
            self.tiers.close()
        self.program = None
        self.caches = []
        if self.on_device is not None:
            self.on_device.graphs = None  # what is captured of a communicator goes before it
        self.comm.close()

    def _track(self, sampler: Sampler, plan: StepPlan) -> None:
        self.pooler.apply(plan)
        for row in plan.freed:
            sampler.free(row)
        for added in plan.added:
            tokens = np.frombuffer(added.tokens, "<u4").astype(np.int64)
            sampler.add(added.row, added.sampling, tokens, added.prompt_tokens, added.sequence, added.rules)
        if not sampler.looks_back:
            return
        for row, token in plan.appended:
            if token == SAMPLED:
                sampler.append_drawn(row, self.last.ids[row : row + 1])
            else:
                sampler.append(row, token)
        for row in np.frombuffer(plan.decodes, "<u4").tolist():
            sampler.append_drawn(row, self.last.ids[row : row + 1])
