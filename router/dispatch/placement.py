"""Sends one request to the replica that will answer it first."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import NamedTuple

from ...core.adapters import adapted_revision
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


class Shape(NamedTuple):
    """Revisions of model and adapter, and page size: replicas of one shape name pages alike."""

    model: str
    adapter: str
    page_size: int

    @property
    def revision(self) -> str:
        """What names all that computes."""
        return adapted_revision(self.model, self.adapter)

    def root(self, salt: str) -> BlockKey:
        """Where chains of block keys start."""
        return root_key(self.model, adapter=self.adapter, caller_salt=salt)


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
        shapes = {
            replica: _shape(replica, request.model)
            for replica in self._catalogue.ready_replicas(request.model)
            if replica.replica_id not in live.refused_by
        }
        bound = live.bound_revision
        replicas = [replica for replica, shape in shapes.items() if bound in ("", shape.revision)]
        now = time.monotonic()
        salt = request.cache_salt
        keys = {
            shape: chain_keys(shape.root(salt), tokens, shape.page_size)
            for shape in {shapes[replica] for replica in replicas}
        }
        hits: dict[str, int] = {}
        if not request.cache_bypass:
            for shape, chain in keys.items():
                for replica_id, pages in self._index.match(chain, now).items():
                    hits[replica_id] = int(pages * shape.page_size)
        candidates = [_candidate(replica, hits, now) for replica in replicas]
        choice = self._choose(candidates, len(tokens), beside)
        replica = next(replica for replica in replicas if replica.replica_id == choice.replica_id)
        self._submit(live, choice, replica, shapes[replica])
        if not request.cache_bypass:
            life = min(PROMISE_S[1], max(PROMISE_S[0], 2 * choice.prediction.ttft_s))
            self._index.promise(choice.replica_id, keys[shapes[replica]], now + life)
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

    def _submit(self, live: LiveRequest, choice: Choice, replica: Replica, shape: Shape) -> None:
        message = submit_message(live, choice.submit_id, shape.root(live.request.cache_salt))
        if shape.adapter:
            message.adapter.name, message.adapter.revision = live.request.model, shape.adapter
        live.sent(replica.replica_id, shape.revision, choice.submit_id)
        self._fleet.session(replica.replica_id).submit(message, live)


def _shape(replica: Replica, model: str) -> Shape:
    """As a request for `model` finds it: the replica's own model, or an adapter that it holds."""
    assert replica.description is not None
    answer = replica.description.answer
    return Shape(answer.revision, "" if model == answer.model else replica.adapters[model], answer.page_size)


def _candidate(replica: Replica, hits: dict[str, int], now: float) -> Candidate:
    assert replica.figures is not None
    return Candidate(
        replica_id=replica.replica_id,
        figures=replica.figures,
        hit_tokens=hits.get(replica.replica_id, 0),
        silent_s=now - replica.reported_at,
    )
