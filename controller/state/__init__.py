"""What the cluster is wanted to be, kept where a restarted controller finds it."""

from .memory import MemoryStore
from .redis import RedisStore
from .store import StateStore
from .values import Answer, ChangeLine, DesiredState, ModelSpec, ReplicaRecord

__all__ = [
    "Answer",
    "ChangeLine",
    "DesiredState",
    "MemoryStore",
    "ModelSpec",
    "RedisStore",
    "ReplicaRecord",
    "StateStore",
]
