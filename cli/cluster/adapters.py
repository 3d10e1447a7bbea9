"""The adapters of a cluster, from what WatchCluster tells."""

from __future__ import annotations

import msgspec

from .admin import ClusterMirror


class AdapterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that a model's replicas are to hold. `ready_replicas` of the model's `replicas` hold it; `errors` say
    why others do not, by replica."""

    name: str
    model: str
    path: str
    replicas: int
    ready_replicas: int
    errors: dict[str, str]


def adapter_statuses(mirror: ClusterMirror) -> list[AdapterStatus]:
    """All of them, by model and name."""
    found = []
    for _, model in sorted(mirror.models.items()):
        replicas = [replica for _, replica in sorted(mirror.replicas.items()) if replica.model == model.name]
        for wanted in model.adapters:
            held = [(wanted.name, wanted.path) in {(a.name, a.path) for a in replica.adapters} for replica in replicas]
            errors = {
                each.id: each.adapter_errors[wanted.name] for each in replicas if wanted.name in each.adapter_errors
            }
            found.append(
                AdapterStatus(
                    name=wanted.name,
                    model=model.name,
                    path=wanted.path,
                    replicas=len(replicas),
                    ready_replicas=sum(held),
                    errors=errors,
                )
            )
    return found
