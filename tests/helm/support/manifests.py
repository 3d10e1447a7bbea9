"""Rendered objects, and the questions that tests ask about them."""

from __future__ import annotations

from typing import Any

import yaml


class _StrictLoader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, which YAML libraries pass over in silence."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    assert len(keys) == len(set(keys)), f"a key is there twice: {keys}"
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value, strict=True)}


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)

Object = dict[str, Any]


class Manifests:
    """What one render gave."""

    def __init__(self, text: str, notes: str) -> None:
        self.text = text
        self.notes = notes
        self.objects: list[Object] = [found for found in yaml.load_all(text, _StrictLoader) if found]

    def kind(self, kind: str) -> list[Object]:
        return [found for found in self.objects if found["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Object:
        (found,) = [found for found in self.kind(kind) if found["metadata"]["name"].endswith(suffix)]
        return found

    def pod_templates(self) -> dict[str, Object]:
        """Pod templates by the name of who makes them, those inside the RayCluster too."""
        found = {
            made["metadata"]["name"]: made["spec"]["template"]
            for made in (*self.kind("Deployment"), *self.kind("StatefulSet"))
        }
        for cluster in self.kind("RayCluster"):
            found["head"] = cluster["spec"]["headGroupSpec"]["template"]
            for group in cluster["spec"]["workerGroupSpecs"]:
                found[f"worker {group['groupName']}"] = group["template"]
        return found

    def containers(self) -> list[Object]:
        return [container for template in self.pod_templates().values() for container in template["spec"]["containers"]]

    def container(self, name: str) -> Object:
        (found,) = [container for container in self.containers() if container["name"] == name]
        return found

    def selected(self, selector: dict[str, str]) -> list[Object]:
        """Pod templates whose labels match. An empty selector, which would match all, is refused."""
        assert selector
        return [
            template
            for template in self.pod_templates().values()
            if selector.items() <= template["metadata"]["labels"].items()
        ]


def ports(template: Object) -> dict[str, int]:
    """Container ports of a pod template by name."""
    return {
        port["name"]: port["containerPort"]
        for container in template["spec"]["containers"]
        for port in container.get("ports", [])
    }
