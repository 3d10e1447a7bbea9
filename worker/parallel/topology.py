"""Where a rank stands: rank = pp_rank * tp + tp_rank. Rank 0 leads; tp rank 0 of the last stage samples."""

from __future__ import annotations

import msgspec


class Topology(msgspec.Struct, frozen=True):
    """One rank's place among `tp` slices of each of `pp` stages."""

    rank: int = 0
    tp: int = 1
    pp: int = 1

    @property
    def world_size(self) -> int:
        return self.tp * self.pp

    @property
    def tp_rank(self) -> int:
        return self.rank % self.tp

    @property
    def pp_rank(self) -> int:
        return self.rank // self.tp

    @property
    def is_first_stage(self) -> bool:
        return self.pp_rank == 0

    @property
    def is_last_stage(self) -> bool:
        return self.pp_rank == self.pp - 1

    @property
    def is_sampler(self) -> bool:
        return self.is_last_stage and self.tp_rank == 0

    def tp_group(self) -> list[int]:
        """Ranks of this rank's stage."""
        first = self.pp_rank * self.tp
        return list(range(first, first + self.tp))
