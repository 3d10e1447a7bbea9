"""What a rank calls to move tensors: sums over its stage's slices, activations from stage to stage."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from ...core.errors import ConfigError
from . import nccl, shared_memory
from .errors import RankLost
from .native_group import NativeGroup
from .route import use_route_to
from .symmetric import SymmetricGroup, with_symmetric_memory
from .tensor_group import DistributedGroup, SoloGroup, TensorGroup
from .topology import Topology

if TYPE_CHECKING:
    from ...kernels.native._native import Exchange

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Communicator:
    """One rank's view of its group. Made by `join`, or by `alone` for a group of one."""

    def __init__(self, place: Topology, group: TensorGroup, device: torch.device, store: Store | None) -> None:
        self.place = place
        self.device = device
        self._group = group
        self._store = store  # rank 0 serves it: it has to live as long as the group

    @property
    def transport(self) -> str:
        """How the stage's slices are summed, for a person."""
        return type(self._group).__name__

    @property
    def exchange(self) -> Exchange | None:
        """The slices' exchange in C, for operations in C that sum by themselves; None where there is none."""
        return self._group.exchange if isinstance(self._group, NativeGroup) else None

    def expect_all(self, lost: int) -> None:
        """Raises RankLost unless an operation in C said that all ranks came."""
        if isinstance(self._group, NativeGroup):
            self._group.expect_all(lost)

    def order_sums(self) -> None:
        """From now on a sum's bits depend on nothing but its terms: they are added in the order of ranks, wherever they
        stand and however many there are. Those over shared memory always are."""
        if isinstance(self._group, SymmetricGroup):
            self._group = self._group.beneath
        if isinstance(self._group, DistributedGroup):
            self._group.ordered = True

    def all_reduce(self, x: Tensor) -> Tensor:
        """Sums contiguous `x` over the slices of this stage, in place; the same bits on each. Raises RankLost."""
        return self._group.all_reduce(x)

    def gather(self, x: Tensor) -> Tensor | None:
        """The slices' `x` side by side along the last dimension on tp rank 0; None on the others. Raises RankLost."""
        return self._group.gather(x)

    def send(self, x: Tensor) -> None:
        """Gives `x` to the same slice of the next stage. Raises RankLost."""
        try:
            dist.send(x, self.place.rank + self.place.tp)
        except RuntimeError as error:
            raise RankLost(f"sending to rank {self.place.rank + self.place.tp}: {error}") from error

    def receive(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Takes what the same slice of the stage before sent. Raises RankLost."""
        x = torch.empty(shape, dtype=dtype, device=self.device)
        try:
            dist.recv(x, self.place.rank - self.place.tp)
        except RuntimeError as error:
            raise RankLost(f"receiving from rank {self.place.rank - self.place.tp}: {error}") from error
        return x

    def loaded(self, step_timeout_s: float) -> None:
        """From here on ranks keep pace: on CUDA, operations may take little longer than the leader waits for a step."""
        if self.device.type == "cuda" and dist.is_initialized():
            nccl.settle(step_timeout_s)

    def close(self) -> None:
        """Leaves the group. The other ranks need not be alive."""
        self._group.close()
        if dist.is_initialized():
            if self.device.type == "cuda":
                nccl.abort()
            else:
                dist.destroy_process_group()
        self._store = None


def alone(device: str = "cpu") -> Communicator:
    """The communicator of a group of one rank."""
    return Communicator(Topology(), SoloGroup(), torch.device(device), None)


def join(
    rank: int, tp: int, pp: int, device: str, rendezvous: str, timeout_s: float, *, symmetric_memory: bool = False
) -> Communicator:
    """Joins the group of tp x pp ranks that meet at `rendezvous`, "tcp://HOST:PORT", where rank 0 listens.

    Returns when all ranks are there. `timeout_s` bounds this and, on CPU, each later operation; on CUDA see nccl.py.
    With device "cuda" each rank takes the visible device of its number; with `symmetric_memory` small sums go by that
    where the devices can. Raises RankLost when the others do not come, ConfigError for an address that
    cannot be.
    """
    place = Topology(rank, tp, pp)
    if place.world_size == 1:
        return alone(device)
    url = urlsplit(rendezvous)
    if url.scheme != "tcp" or not url.hostname or not url.port:
        raise ConfigError(f"rendezvous must be tcp://HOST:PORT, got {rendezvous!r}")
    use_route_to("127.0.0.1" if url.hostname == "localhost" else url.hostname)
    if device == "cuda":
        nccl.prepare_environment(on_loopback=url.hostname in LOOPBACK)
    timeout = timedelta(seconds=timeout_s)
    try:
        store = _meet(place, url.hostname, url.port, timeout)
        where = _own_device(rank, device)
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=PrefixStore("world", store),
            rank=rank,
            world_size=place.world_size,
            timeout=timedelta(seconds=nccl.LOADING_S) if device == "cuda" else timeout,
            device_id=where if device == "cuda" else None,
        )
        group = _tensor_group(place, store, device, timeout_s)
        if symmetric_memory and device == "cuda":
            group = with_symmetric_memory(group, where)
        return Communicator(place, group, where, store)
    except RuntimeError as error:  # torch's DistError is one
        raise RankLost(f"rank {rank} could not join the group at {rendezvous}: {error}") from error


def _own_device(rank: int, device: str) -> torch.device:
    """This rank's device, made the current one. A launcher may show each rank its own device only, or all of a node."""
    if device != "cuda":
        return torch.device(device)
    where = torch.device(device, rank % torch.cuda.device_count())
    torch.cuda.set_device(where)
    return where


def _meet(place: Topology, host: str, port: int, timeout: timedelta) -> Store:
    """The store where ranks find each other. Rank 0 binds the very address: by itself torch would bind all of them."""
    if place.rank != 0:
        return TCPStore(host, port, place.world_size, False, timeout)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(place.world_size * 2)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on rendezvous {host}:{port}: {error}") from None
    return TCPStore(
        host, port, place.world_size, True, timeout, wait_for_workers=False, master_listen_fd=listener.detach()
    )


def _tensor_group(place: Topology, store: Store, device: str, timeout_s: float) -> TensorGroup:
    if place.tp == 1:
        return SoloGroup()
    if device == "cpu" and shared_memory.supported():
        name = f"stage-{place.pp_rank}"
        return shared_memory.open_group(store, name, place.tp_rank, place.tp, timeout_s)
    mine: dist.ProcessGroup | None = None
    for stage in range(place.pp):  # every rank has to make every group, in the same order
        ranks = Topology(stage * place.tp, place.tp, place.pp).tp_group()
        group = dist.new_group(ranks, timeout=timedelta(seconds=nccl.LOADING_S if device == "cuda" else timeout_s))
        if stage == place.pp_rank:
            mine = group
    assert mine is not None, "each rank is in one stage"
    return DistributedGroup(mine, place.tp_group()[0], place.tp, place.tp_rank)
