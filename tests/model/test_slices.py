"""Weights go to ranks as slices: together they read each matrix once, and none of them reads or opens what it has no
use for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tiny_llamas import write_llama
from tiny_models import write_stacked

from headway.worker.model.checkpoint import Checkpoint
from headway.worker.model.registry import load_model, read_config
from headway.worker.model.split import Part
from headway.worker.parallel.communicator import Communicator
from headway.worker.parallel.tensor_group import SoloGroup
from headway.worker.parallel.topology import Topology

WHOLE_ON_EACH = ("mlp.gate.weight", "moe.gate.weight")  # routers of experts: every rank chooses alike


class Reads:
    """How often each element of each tensor was read, how many in all, and from which files."""

    def __init__(self) -> None:
        self.counts: dict[str, torch.Tensor] = {}
        self.matrices = 0
        self.files: set[Path] = set()

    def note(self, file: Path, name: str, shape: tuple[int, ...], dim: int, part: Part) -> None:
        counts = self.counts.setdefault(name, torch.zeros(shape, dtype=torch.int32))
        counts.narrow(dim, part.start, part.size).add_(1)
        self.files.add(file)
        if len(shape) > 1 and not name.endswith(WHOLE_ON_EACH):
            self.matrices += counts.numel() * part.size // shape[dim]


@pytest.fixture
def read_by(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, Topology], Reads]]:
    """What one rank reads from a checkpoint."""
    real = Checkpoint.read
    reads = Reads()

    def noted(
        self: Checkpoint,
        name: str,
        shape: tuple[int, ...],
        out: torch.Tensor,
        *,
        dim: int = 0,
        part: Part | None = None,
    ) -> None:
        real(self, name, shape, out, dim=dim, part=part)
        reads.note(self.file(name), name, shape, dim, part or Part(0, shape[dim]))
        assert out.numel() <= reads.counts[name].numel()

    monkeypatch.setattr(Checkpoint, "read", noted)

    def get(path: Path, place: Topology) -> Reads:
        nonlocal reads
        reads = Reads()
        comm = Communicator(place, SoloGroup(), torch.device("cpu"), None)
        load_model(path, read_config(path), comm, torch.float32, comm.device, lambda share: None)
        return reads

    yield get


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("shards"), shard="100KB", num_key_value_heads=2)


@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("name", ["shards", "phi3", "mixtral", "qwen3-moe", "stacked experts"])
def test_ranks_read_each_matrix_once_together(
    name: str,
    tp: int,
    pp: int,
    read_by: Callable[[Path, Topology], Reads],
    checkpoint: Callable[[str], Path],
    sharded: Path,
    tmp_path: Path,
) -> None:
    if name == "stacked experts":
        path = write_stacked(checkpoint("mixtral"), tmp_path)
    else:
        path = sharded if name == "shards" else checkpoint(name)
    whole = read_by(path, Topology())
    ranks = [read_by(path, Topology(rank, tp, pp)) for rank in range(tp * pp)]
    assert all(torch.all(counts == 1) for counts in whole.counts.values())
    for tensor, counts in whole.counts.items():
        times = tp if counts.ndim == 1 or tensor.endswith(WHOLE_ON_EACH) else 1
        total = sum(rank.counts.get(tensor, torch.zeros_like(counts)) for rank in ranks)
        assert torch.all(total == times), tensor
    # Layers, embedding and head are halved each time, and the embedding is as big as the head; one of Qwen3-MoE's
    # layers is not as big as the others.
    assert max(rank.matrices for rank in ranks) <= whole.matrices / (tp * pp) * (1.06 if name == "qwen3-moe" else 1)


def test_a_stage_opens_only_the_shards_that_it_needs(read_by: Callable[[Path, Topology], Reads], sharded: Path) -> None:
    first, second = (read_by(sharded, Topology(rank, 1, 2)).files for rank in (0, 1))
    assert len(first | second) == len(list(sharded.glob("*.safetensors"))) > 4
    assert len(first & second) <= 1
