"""Sends one request to the replica that will answer it first."""

from __future__ import annotations

import time
from typing import cast

from ...core.blocks import BlockKey, chain_keys, root_key
from ...core.wire import sampling_to_proto
from ...proto.headway.v1 import engine_pb2, pooling_pb2
from ..index import PrefixIndex
from ..policy import Candidate, Choice, Policy
from ..replicas import Fleet, FleetCatalogue, Replica
from .live import LiveRequest
from .meter import DispatchMeter

# How long pages count as on their way: the predicted time twice, within these bounds.
PROMISE_S = (1.0, 30.0)

Shape = tuple[str, int]
"""Model revision and page size: replicas of one shape name pages alike."""


class Placement:
    """Knows the candidates, asks the policy, submits."""

    def __init__(
        self, fleet: Fleet, catalogue: FleetCatalogue, index: PrefixIndex, policy: Policy, meter: DispatchMeter
    ) -> None:
        self._fleet = fleet
        self._catalogue = catalogue
        self._index = index
        self._policy = policy
        self._meter = meter

    def place(self, live: LiveRequest) -> None:
        """Chooses a replica and puts the request, as far as it got, on the session with it.

        Raises Unavailable when there is none, Overloaded when their queues are full.
        """
        request, tokens = live.request, live.known_tokens
        replicas = [
            replica
            for replica in self._catalogue.ready_replicas(request.model)
            if replica.replica_id not in live.refused_by and live.bound_revision in ("", _shape(replica)[0])
        ]
        now = time.monotonic()
        keys = {shape: self._keys(request.cache_salt, tokens, shape) for shape in set(map(_shape, replicas))}
        hits: dict[str, int] = {}
        if not request.cache_bypass:
            for shape, chain in keys.items():
                for replica_id, depth in self._index.match(chain, now).items():
                    hits[replica_id] = depth * shape[1]
        choice = self._policy.choose([_candidate(replica, hits, now) for replica in replicas], len(tokens))
        replica = next(replica for replica in replicas if replica.replica_id == choice.replica_id)
        self._submit(live, choice, replica, tokens)
        if not request.cache_bypass:
            life = min(PROMISE_S[1], max(PROMISE_S[0], 2 * choice.prediction.ttft_s))
            self._index.promise(choice.replica_id, keys[_shape(replica)], now + life)
        self._meter.placed(request.model, choice.replica_id, len(tokens), choice.hit_tokens)

    def withdraw(self, live: LiveRequest) -> None:
        """Stops the request where it runs, if it still does."""
        try:
            session = self._fleet.session(live.replica_id)
        except KeyError:
            return
        session.withdraw(live.submit_id)
        self._policy.ledger.release(live.replica_id, live.submit_id)

    def settle(self, live: LiveRequest) -> None:
        """The replica has answered: its reports count the request from now on."""
        self._policy.ledger.release(live.replica_id, live.submit_id)

    def _submit(self, live: LiveRequest, choice: Choice, replica: Replica, tokens: list[int]) -> None:
        request = live.request
        message = engine_pb2.Submit(
            id=choice.submit_id,
            token_ids=tokens,
            delivered=len(live.received),
            sampling=sampling_to_proto(request.sampling),
            max_new_tokens=request.max_new_tokens,
            eos_token_ids=request.eos_token_ids,
            stop_token_ids=request.stop_token_ids,
            cache_root=root_key(_shape(replica)[0], caller_salt=request.cache_salt),
            cache_bypass=request.cache_bypass,
            request_id=request.request_id,
            pooling=cast("pooling_pb2.Pooling", request.pooling),
        )
        live.sent(replica.replica_id, _shape(replica)[0], choice.submit_id)
        self._fleet.session(replica.replica_id).submit(message, live)

    @staticmethod
    def _keys(salt: str, tokens: list[int], shape: Shape) -> list[BlockKey]:
        revision, page_size = shape
        return chain_keys(root_key(revision, caller_salt=salt), tokens, page_size)


def _shape(replica: Replica) -> Shape:
    assert replica.description is not None
    return replica.description.answer.revision, replica.description.answer.page_size


def _candidate(replica: Replica, hits: dict[str, int], now: float) -> Candidate:
    assert replica.figures is not None
    return Candidate(
        replica_id=replica.replica_id,
        figures=replica.figures,
        hit_tokens=hits.get(replica.replica_id, 0),
        silent_s=now - replica.reported_at,
    )
