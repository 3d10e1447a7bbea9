"""The models that the replicas serve, as the fronts see them."""

from __future__ import annotations

from collections import Counter

import msgspec

from ...core.adapters import adapted_revision
from ...core.errors import InvalidRequest, NotFound, Unavailable
from ..types import ServedModel
from .fleet import Fleet
from .replica import Description, Replica

RETRY_AFTER_S = 2.0


class FleetCatalogue:
    """Implements `router.types.Catalogue` over the fleet; rebuilt only when the fleet changed."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._version = -1
        self._served: dict[str, ServedModel] = {}
        self._ready: dict[str, list[Replica]] = {}

    def models(self) -> list[ServedModel]:
        """All models that a replica has described, sorted by name, with those that are declared but have none ready."""
        self._refresh()
        return [self._served[name] for name in sorted(self._served)]

    def get(self, name: str) -> ServedModel:
        """The model of that name; with an empty name, the only one there is. Raises NotFound, Unavailable."""
        self._refresh()
        adapters = set().union(*self._fleet.declared_adapters.values())
        known = self._fleet.declared_models | self._served.keys() | adapters
        if not name:
            own = {model.name for model in self._served.values() if not model.base}
            name = self._only(self._fleet.declared_models | own)
        if name not in known:
            raise NotFound(f"no model {name!r} here; there is: {', '.join(sorted(known)) or 'none'}", field="model")
        if not self._ready.get(name):
            raise Unavailable(f"no replica of model {name!r} is ready", retry_after_s=RETRY_AFTER_S)
        return self._served[name]

    def ready_replicas(self, name: str) -> list[Replica]:
        """The replicas of the model that take requests and turn the same text into the same ids as `get` says."""
        self._refresh()
        return self._ready.get(name, [])

    @staticmethod
    def _only(known: set[str]) -> str:
        if not known:
            raise Unavailable("no model is served yet", retry_after_s=RETRY_AFTER_S)
        if len(known) > 1:
            raise InvalidRequest(f"name one of the models: {', '.join(sorted(known))}", field="model")
        return next(iter(known))

    def _refresh(self) -> None:
        if self._version == self._fleet.version:
            return
        self._version = self._fleet.version
        described: dict[str, list[tuple[Replica, Description]]] = {}
        for replica in self._fleet.replicas():
            if replica.description is not None:
                described.setdefault(replica.model, []).append((replica, replica.description))
        # A model that lost its last replica stays listed as long as it is to be served.
        kept = {name: model for name, model in self._served.items() if self._is_declared(model)}
        self._served = {name: msgspec.structs.replace(model, ready_replicas=0) for name, model in kept.items()}
        self._ready = {}
        for name, members in described.items():
            self._served[name], self._ready[name] = _serve(name, members)
        for name in sorted(described):
            self._serve_adapters(self._served[name], [replica for replica, _ in described[name]])

    def _is_declared(self, model: ServedModel) -> bool:
        if model.base:
            return model.name in self._fleet.declared_adapters.get(model.base, ())
        return model.name in self._fleet.declared_models

    def _serve_adapters(self, model: ServedModel, replicas: list[Replica]) -> None:
        """The adapters that replicas of the model hold, each as a model of its own. A name that is taken stays what it
        was: models go before adapters, and earlier models' adapters before later ones'."""
        taken = {name for name, other in self._served.items() if other.base != model.name} | self._fleet.declared_models
        for name in sorted({name for replica in replicas for name in replica.adapters} - taken):
            ready = [replica for replica in self._ready[model.name] if name in replica.adapters]
            held = Counter(replica.adapters[name] for replica in ready or replicas if name in replica.adapters)
            revision = min(held, key=lambda candidate: (-held[candidate], candidate))
            self._ready[name] = ready
            self._served[name] = msgspec.structs.replace(
                model,
                name=name,
                revision=adapted_revision(model.revision, revision),
                ready_replicas=len(ready),
                base=model.name,
                base_revision=model.revision,
            )


def _serve(name: str, members: list[tuple[Replica, Description]]) -> tuple[ServedModel, list[Replica]]:
    """The model as most of its ready replicas describe it, and those of them that agree on text."""
    voters = [pair for pair in members if pair[0].ready] or members
    revisions = Counter(description.answer.revision for _, description in voters)
    revision = min(revisions, key=lambda candidate: (-revisions[candidate], candidate))
    spoken = next(description for _, description in voters if description.answer.revision == revision)
    ready = [
        replica for replica, description in members if replica.ready and description.text_digest == spoken.text_digest
    ]
    answer = spoken.answer
    model = ServedModel(
        name=name,
        revision=revision,
        page_size=answer.page_size,
        max_context_tokens=answer.max_context_tokens,
        vocab_size=answer.vocab_size,
        eos_token_ids=tuple(answer.eos_token_ids),
        default_sampling=spoken.default_sampling,
        text_assets=spoken.text_assets,
        ready_replicas=len(ready),
        embedding_size=answer.embedding_size,
    )
    return model, ready
