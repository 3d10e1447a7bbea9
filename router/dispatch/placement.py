"""Sends one request to the replica that will answer it first."""

from __future__ import annotations

import time
from contextlib import suppress

from ...core.blocks import BlockKey, chain_keys, root_key
from ...core.errors import Overloaded
from ..index import PrefixIndex
from ..policy import Candidate, Choice, Policy
from ..replicas import Fleet, FleetCatalogue, Replica
from .live import LiveRequest
from .meter import DispatchMeter
from .submit import submit_message

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

    def place(self, live: LiveRequest, beside: str = "") -> None:
        """Chooses a replica and puts the request, as far as it got, on the session with it.

        `beside` names the replica that has the other sequences of the same request, and their prompt: it is taken while
        it takes requests. Raises Unavailable when there is none, Overloaded when their queues are full.
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
        candidates = [_candidate(replica, hits, now) for replica in replicas]
        choice = self._choose(candidates, len(tokens), beside)
        replica = next(replica for replica in replicas if replica.replica_id == choice.replica_id)
        self._submit(live, choice, replica)
        if not request.cache_bypass:
            life = min(PROMISE_S[1], max(PROMISE_S[0], 2 * choice.prediction.ttft_s))
            self._index.promise(choice.replica_id, keys[_shape(replica)], now + life)
        self._meter.placed(request.model, choice.replica_id, len(tokens), choice.hit_tokens)

    def _choose(self, candidates: list[Candidate], tokens: int, beside: str) -> Choice:
        same = [candidate for candidate in candidates if candidate.replica_id == beside]
        if same:
            with suppress(Overloaded):
                return self._policy.choose(same, tokens)
        return self._policy.choose(candidates, tokens)

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

    def _submit(self, live: LiveRequest, choice: Choice, replica: Replica) -> None:
        revision = _shape(replica)[0]
        root = root_key(revision, caller_salt=live.request.cache_salt)
        message = submit_message(live, choice.submit_id, root)
        live.sent(replica.replica_id, revision, choice.submit_id)
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
