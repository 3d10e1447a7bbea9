"""What the cluster is wanted to be, kept where a restarted controller finds it."""

from .memory import MemoryStore
from .redis import RedisStore
from .revisions import record_revisions
from .store import StateStore
from .values import AdapterRecord, Answer, ChangeLine, DesiredState, ModelRevision, ModelSpec, ReplicaRecord

__all__ = [
    "AdapterRecord",
    "Answer",
    "ChangeLine",
    "DesiredState",
    "MemoryStore",
    "ModelRevision",
    "ModelSpec",
    "RedisStore",
    "ReplicaRecord",
    "StateStore",
    "record_revisions",
]
