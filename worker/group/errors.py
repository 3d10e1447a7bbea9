"""How a group ends badly."""

from __future__ import annotations

EXIT_ENGINE_DEAD = 70
"""Exit code of a leader whose group died under it."""
EXIT_LEADER_GONE = 71
"""Exit code of a rank whose leader is gone."""
EXIT_RANK_FAILED = 72
"""Exit code of a rank that failed; it has told the leader why."""


class GroupFailed(RuntimeError):
    """A rank died or hangs. The group cannot go on; its leader's process must end."""
