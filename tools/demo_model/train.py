"""Data-parallel training over single-thread processes, on a schedule that follows the clock.

One thread a process, because several OpenMP threads on a busy machine wait for each other most of the time. The
learning rate falls to zero when the time is over, whatever the machine's load made of the number of steps.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from .evaluate import bits_per_byte, total_nats
from .model import Llama, Shape
from .muon import Muon
from .prepare import load_stream, load_tokenizer
from .windows import BoundaryNoise, epochs, for_rank

WARM_UP = 0.02  # of the time
LONG_PHASE = 0.75  # from this part of the time on, windows are as long as the model's context
SHORT_WINDOW, SHORT_BATCH = 512, 8
SAVE_SECONDS = 240.0


@dataclass(frozen=True)
class Run:
    """One training run; `teacher` names another run in the same folder whose predictions are the targets."""

    name: str
    shape: Shape
    minutes: float
    processes: int
    work: Path
    seed: int
    teacher: str | None = None

    @property
    def checkpoint(self) -> Path:
        """Weights, optimizer and clock: enough to go on after an interruption."""
        return self.work / f"{self.name}.pt"

    @property
    def log(self) -> Path:
        """One JSON object a line."""
        return self.work / f"{self.name}.jsonl"


def train(run: Run) -> None:
    """Train until the time is over, going on from a checkpoint if there is one."""
    os.environ.update(OMP_NUM_THREADS="1", TORCHINDUCTOR_COMPILE_THREADS="1", GLOO_SOCKET_IFNAME="lo")
    meeting = run.work / f"{run.name}.meeting"
    meeting.unlink(missing_ok=True)
    spawn(_process, args=(run, meeting), nprocs=run.processes)  # type: ignore[no-untyped-call]


def _process(rank: int, run: Run, meeting: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=run.processes)
    try:
        Trainer(run, rank).train()
    finally:
        dist.destroy_process_group()


class Trainer:
    """One process of a run. All processes hold the same weights, because they make the same steps."""

    def __init__(self, run: Run, rank: int) -> None:
        torch.manual_seed(run.seed)
        self.run, self.rank = run, rank
        self.model = Llama(run.shape)
        self.teacher = load_model(run.work / f"{run.teacher}.pt") if run.teacher else None
        self.optimizer = Muon(self.model)
        self.steps, self.tokens, self.spent = 0, 0, 0.0
        self.resume()
        self.saved_at = self.spent
        self.loss = torch.compile(self.batch_loss, dynamic=False)

    def resume(self) -> None:
        """Go on where the last checkpoint was written."""
        if not self.run.checkpoint.exists():
            return
        saved = torch.load(self.run.checkpoint)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.steps, self.tokens, self.spent = saved["steps"], saved["tokens"], saved["seconds"]

    def save(self) -> None:
        """Replace the checkpoint in one move, so that a reader never sees half of one."""
        state = {"shape": self.run.shape.as_config(), "model": self.model.state_dict(), "steps": self.steps,
                 "tokens": self.tokens, "seconds": self.clock(), "optimizer": self.optimizer.state_dict()}  # fmt: skip
        fresh = self.run.checkpoint.with_suffix(".new")
        torch.save(state, fresh)
        fresh.rename(self.run.checkpoint)

    def clock(self) -> float:
        """Seconds of training so far, over all attempts, without the time to compile."""
        return self.spent + time.monotonic() - self.started

    def batch_loss(self, window: Tensor) -> Tensor:
        """Mean loss of [batch, length + 1] token ids: against the text, or against the teacher's distribution."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.model(window[:, :-1]).flatten(0, 1)
        if self.teacher is None:
            return F.cross_entropy(logits.float(), window[:, 1:].flatten())
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            wanted = self.teacher(window[:, :-1]).flatten(0, 1).float().softmax(-1)
        return F.cross_entropy(logits.float(), wanted)

    def train(self) -> None:
        """The whole run: compile, then one phase with short windows and one with long ones, then the last numbers."""
        longest = self.run.shape.max_position_embeddings
        for length in (SHORT_WINDOW, longest):
            torch.autograd.backward(self.loss(torch.zeros(self.batch(length), length + 1, dtype=torch.int64)))
        dist.barrier()
        self.started = time.monotonic()
        self.phase(SHORT_WINDOW, until=LONG_PHASE)
        self.phase(longest, until=1.0)
        self.report({"held_out": self.held_out(longest)}, save=True)

    def batch(self, length: int) -> int:
        """Windows of this length in one process's batch: always the same number of tokens."""
        return SHORT_BATCH * SHORT_WINDOW // length

    def phase(self, length: int, until: float) -> None:
        """Take steps with windows of one length until that part of the time is over."""
        work = self.run.work
        windows = epochs(load_stream(work, "code"), load_stream(work, "chats"), BoundaryNoise(load_tokenizer(work)),
                         length, self.run.seed + self.steps)  # fmt: skip
        batches = for_rank(windows, self.batch(length), self.rank, self.run.processes)
        progress = 0.0
        while progress < until:
            loss, progress = self.step(torch.from_numpy(next(batches).astype("int64")))
            if self.steps % 50 == 0 and self.rank == 0:
                self.report({"loss": round(loss, 4), "progress": round(progress, 4), "window": length})
            if progress < 1.0:
                self.save_in_time(progress)

    def step(self, window: Tensor) -> tuple[float, float]:
        """One optimizer step; returns the mean loss and the part of the time that is over, the same on every rank."""
        self.model.zero_grad(set_to_none=True)
        loss = self.loss(window)
        torch.autograd.backward(loss)
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        # The clock of rank 0 travels with the gradients: all ranks decide with one time.
        now = self.clock() / (60 * self.run.minutes) * self.run.processes if self.rank == 0 else 0.0
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), loss.detach().view(1), torch.tensor([now])])
        dist.all_reduce(flat)
        flat /= self.run.processes
        mean, progress = flat[-2].item(), flat[-1].item()
        parts = torch.split(flat[:-2], [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step(learning_rate(progress))
        self.steps += 1
        self.tokens += (window.numel() - len(window)) * self.run.processes
        return mean, progress

    def save_in_time(self, progress: float) -> None:
        """Every few minutes of the shared clock: measure the held-out loss and save."""
        if progress * 60 * self.run.minutes - self.saved_at < SAVE_SECONDS:
            return
        self.saved_at = progress * 60 * self.run.minutes
        self.report({"held_out": self.held_out(SHORT_WINDOW)}, save=True)

    def held_out(self, length: int) -> float:
        """Bits per byte on the held-out files, each process measuring its share."""
        facts = json.loads((self.run.work / "facts.json").read_text())
        stream = load_stream(self.run.work, "held_out")
        nats = torch.tensor([total_nats(self.model, stream, length, self.rank, self.run.processes)])
        dist.all_reduce(nats)
        return bits_per_byte(nats.item(), facts["held_out_bytes"])

    def report(self, line: dict[str, Any], save: bool = False) -> None:
        """Rank 0 writes a line to the log, and the checkpoint if asked."""
        if self.rank != 0:
            return
        line = {"steps": self.steps, "tokens": self.tokens, "seconds": round(self.clock(), 1),
                "processes": self.run.processes} | line  # fmt: skip
        with self.run.log.open("a") as log:
            log.write(json.dumps(line) + "\n")
        if save:
            self.save()


def learning_rate(progress: float) -> float:
    """A short warm-up, then a straight line to zero at the end of the time."""
    return max(0.0, min(progress / WARM_UP, 1.0, 1.0 - progress))


def load_model(checkpoint: Path) -> Llama:
    """The model of a checkpoint, frozen."""
    saved = torch.load(checkpoint)
    model = Llama(Shape(**saved["shape"]))
    model.load_state_dict(saved["model"])
    return model.requires_grad_(False).eval()
