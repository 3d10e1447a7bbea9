"""What goes wrong between ranks."""

from __future__ import annotations


class RankLost(RuntimeError):
    """Another rank did not take part in time, or its connection broke. The group cannot go on."""
