"""One replica as this router sees it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import xxhash

from ...core.sampling import SamplingParams
from ...core.wire import sampling_from_proto
from ...proto.headway.v1 import admin_pb2, engine_pb2
from ..policy import Figures


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What the leader tells of its model and limits, with the model's text files."""

    answer: engine_pb2.DescribeResponse
    text_assets: Mapping[str, bytes]
    text_digest: bytes

    @property
    def default_sampling(self) -> SamplingParams:
        return sampling_from_proto(self.answer.default_sampling, SamplingParams())


def describe(answer: engine_pb2.DescribeResponse, files: Mapping[str, bytes]) -> Description:
    """Puts an answer and the files together. Equal digests mean that text turns into the same token ids."""
    digest = xxhash.xxh3_128()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode())
        digest.update(files[name])
    digest.update(f"{answer.vocab_size}\0{list(answer.eos_token_ids)}".encode())
    return Description(answer=answer, text_assets=files, text_digest=digest.digest())


class Replica:
    """State from the cluster's watch (`state`), and from the session with its leader (all else).

    Without a controller a replica is known by its address only and counts as READY: its own session says the rest.
    """

    def __init__(self, replica_id: str, endpoint: str, *, by_address: bool = False) -> None:
        self.replica_id = replica_id
        self.endpoint = endpoint
        self.by_address = by_address  # whoever answers there is meant, and says its id
        self.state: admin_pb2.ReplicaState = admin_pb2.REPLICA_STATE_READY
        self.description: Description | None = None
        self.figures: Figures | None = None
        self.adapters: dict[str, str] = {}  # revision by name
        self.synced = False
        self.retired = False
        self.reported_at = 0.0

    @property
    def model(self) -> str:
        return self.description.answer.model if self.description else ""

    @property
    def ready(self) -> bool:
        """Whether new requests may go there."""
        return (
            self.synced
            and not self.retired
            and self.state == admin_pb2.REPLICA_STATE_READY
            and self.figures is not None
            and self.figures.accepting
        )
