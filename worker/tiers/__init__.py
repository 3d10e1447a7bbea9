"""KV tiers: pages that give way on the device go to host memory, and on to disk, and come back by key.

The leader decides (tiers.py, over shelves of slots); ranks copy what the plans name (rank.py), each its own slice.
"""

from .progress import Progress
from .tiers import TierFigures, Tiers

__all__ = ["Progress", "TierFigures", "Tiers"]
