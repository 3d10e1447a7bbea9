"""Real rank processes that a test drives with step plans, through a pipe instead of the step plane."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from headway.core.errors import ConfigError
from headway.core.specs import EngineSpec, GroupSpec
from headway.worker.execution.info import ModelInfo
from headway.worker.execution.runner import Runner
from headway.worker.parallel.communicator import Communicator, join
from headway.worker.plan import StepPlan, StepResult

PAGE_SIZE = 8
TIMEOUT_S = 20.0


def spec_for(model: Path, tp: int, pp: int, **changes: Any) -> GroupSpec:
    """A group of the model with small pages; on CPU in float32, in which other libraries are compared with."""
    dtype = "auto" if changes.get("device", "cpu") == "cuda" else "float32"
    fields = {"engine": EngineSpec(page_size=PAGE_SIZE), "dtype": dtype, **changes}
    return GroupSpec(replica_id="test", model_name="test", model_path=str(model), tp=tp, pp=pp, **fields)


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rank_context() -> multiprocessing.context.BaseContext:
    """Ranks are forked from a server that has imported torch once: eight imports would take half a minute."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["headway.worker.execution.runner"])
    return context


class Rank:
    """What one process does: commands in, (result, logits) out."""

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm
        self.runner: Runner | None = None
        self.logits: np.ndarray | None = None
        self.progress: list[float] = []

    def load(self, spec: GroupSpec, pages: int) -> ModelInfo:
        self.progress = []
        self.runner = Runner(spec, self.comm, self.progress.append)
        self.runner.allocate(pages)
        if self.runner.sampler is not None:
            self._record(self.runner)
        return self.runner.info

    def read_adapter(self, number: int, path: Path) -> tuple[str, str]:
        """Its revision, or what is wrong with it."""
        assert self.runner is not None
        try:
            return self.runner.adapters.read(number, path)[0], ""
        except ConfigError as error:
            return "", str(error)

    def step(self, plan: StepPlan) -> tuple[StepResult | None, np.ndarray | None]:
        assert self.runner is not None
        self.logits = None
        return self.runner.step(plan), self.logits

    def _record(self, runner: Runner) -> None:
        sampler = runner.sampler
        assert sampler is not None
        sample = sampler.sample

        def recording(logits: torch.Tensor, *rest: Any) -> list[int]:
            self.logits = logits.to("cpu", torch.float32).numpy().copy()
            return sample(logits, *rest)

        sampler.sample = recording  # type: ignore[method-assign]


def serve(rank: int, tp: int, pp: int, rendezvous: str, pipe: Connection) -> None:
    """Entry point of a rank process; ends when the pipe does."""
    rank_here = Rank(join(rank, tp, pp, "cpu", rendezvous, TIMEOUT_S))
    pipe.send(("done", None))
    while True:
        try:
            command, data = pipe.recv()
        except EOFError:
            break
        try:
            if command == "load":
                reply: Any = rank_here.load(msgspec.msgpack.decode(data[0], type=GroupSpec), data[1])
            elif command == "read":
                reply = rank_here.read_adapter(*data)
            elif command == "step":
                reply = rank_here.step(msgspec.msgpack.decode(data, type=StepPlan))
            else:
                reply = data(rank_here.comm)
            pipe.send(("done", reply))
        except Exception:
            pipe.send(("failed", traceback.format_exc()))
    rank_here.comm.close()


class RankGroup:
    """tp x pp ranks; a group of one runs in this process. `load` a model, then `step`, as often as you like."""

    def __init__(self, tp: int, pp: int) -> None:
        self.tp, self.pp = tp, pp
        self.pipes: list[Connection] = []
        self.processes: list[multiprocessing.process.BaseProcess] = []
        self.alone: Rank | None = None
        if tp * pp == 1:
            self.alone = Rank(join(0, 1, 1, "cpu", "", TIMEOUT_S))
            return
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        context = rank_context()
        rendezvous = f"tcp://127.0.0.1:{free_port()}"
        for rank in range(tp * pp):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(rank, tp, pp, rendezvous, theirs), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        self._replies()

    def load(self, model: Path, pages: int = 64, **changes: Any) -> list[ModelInfo]:
        """A new runner on every rank."""
        spec = spec_for(model, self.tp, self.pp, **changes)
        if self.alone is not None:
            return [self.alone.load(spec, pages)]
        return self._ask("load", (msgspec.msgpack.encode(spec), pages))

    def read_adapter(self, number: int, path: Path) -> list[tuple[str, str]]:
        """(revision, error) of each rank, by rank."""
        if self.alone is not None:
            return [self.alone.read_adapter(number, path)]
        return self._ask("read", (number, path))

    def step(self, plan: StepPlan) -> tuple[StepResult, np.ndarray | None]:
        """Result and logits of the sampling rank; every other rank must have none."""
        plan = msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=StepPlan)
        if self.alone is not None:
            result, logits = self.alone.step(plan)
        else:
            replies = self._ask("step", msgspec.msgpack.encode(plan))
            sampler = self.tp * (self.pp - 1)
            result, logits = replies[sampler]
            assert all(reply == (None, None) for rank, reply in enumerate(replies) if rank != sampler)
        assert result is not None and result.step == plan.step
        return result, logits

    def run(self, function: Any) -> list[Any]:
        """`function(communicator)` on every rank at once; it has to be importable."""
        assert self.alone is None
        return self._ask("run", function)

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()

    def _ask(self, command: str, data: Any) -> list[Any]:
        for pipe in self.pipes:
            pipe.send((command, data))
        return self._replies()

    def _replies(self) -> list[Any]:
        replies = []
        for pipe in self.pipes:
            assert pipe.poll(60), "a rank did not answer"
            replies.append(pipe.recv())
        failed = [text for outcome, text in replies if outcome == "failed"]
        assert not failed, failed[0]
        return [reply for _, reply in replies]
