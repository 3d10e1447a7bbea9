"""Values: what is wrong is refused with its path, what is set arrives, and an upgrade keeps the secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from headway.tests.helm.support.manifests import Manifests
from headway.tests.helm.support.value_sets import VALUE_SETS, workers

if TYPE_CHECKING:
    from headway.tests.helm.conftest import Helm

CHART = Path(__file__).parents[2] / "helm" / "headway"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"routr": {}}, ["routr", "additional propert"]),
        ({"router": {"replica": 3}}, ["/router", "replica", "additional propert"]),
        ({"router": {"replicas": "three"}}, ["/router/replicas", "integer"]),
        ({"router": {"replicas": 0}}, ["/router/replicas", "minimum"]),
        ({"router": {"service": {"type": "Ingress"}}}, ["/router/service/type", "ClusterIP"]),
        ({"model": {"device": "gpu"}}, ["/model/device", "cuda"]),
        ({"model": {"path": "llama"}}, ["/model/path", "pattern"]),
        ({"model": {"tensorParallel": 1.5}}, ["/model/tensorParallel", "integer"]),
        ({"redis": {"persistence": {"size": "1 GB"}}}, ["/redis/persistence/size", "pattern"]),
        ({"externalRedis": {"address": "redis://x"}}, ["/externalRedis/address", "pattern"]),
        ({"logs": {"level": "debug"}}, ["/logs/level", "DEBUG"]),
        ({"workers": [workers(gpu=1)]}, ["/workers/0", "gpu", "additional propert"]),
        ({"workers": [{"name": "only"}]}, ["/workers/0", "missing propert"]),
        ({"networkPolicy": {"clients": [{}]}}, ["/networkPolicy/clients/0"]),
    ],
)
def test_the_schema_names_the_path(helm: Helm, values: dict[str, Any], words: list[str]) -> None:
    refusal = helm.refusal(values)
    assert all(word in refusal for word in words), refusal


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": {"device": "cuda"}}, "makes 1 ranks, and no group in workers has that many gpus"),
        (
            {"model": {"device": "cuda", "tensorParallel": 8}, "workers": [workers(gpus=4)]},
            "makes 8 ranks, and no group in workers has that many gpus in one pod (the most is 4)",
        ),
        (
            {"model": {"device": "cuda", "tensorParallel": 8, "replicas": 3}, "workers": [workers()]},
            "model.replicas is 3, and workers have room for 2 groups of 8 GPUs",
        ),
        ({"workers": [workers(), workers()]}, 'two groups named "h100"'),
        ({"model": {"path": "/data/m", "existingClaim": "c"}}, "model.path must begin with /models"),
        ({"externalRedis": {"address": "r:6379"}}, "both set: choose one"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(helm: Helm, values: dict[str, Any], words: str) -> None:
    assert words in helm.refusal(values)


def test_helm_finds_nothing_to_criticise(helm: Helm) -> None:
    lint = helm.ask(lint=True)["lint"]
    # Severity 1 is information (there is no icon), 2 a warning, 3 an error.
    assert not lint["Errors"] and all(message["Severity"] < 2 for message in lint["Messages"])


def test_the_schema_is_strict_and_knows_exactly_the_values() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def resolve(found: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in found:
            found = schema["$defs"][found["$ref"].rpartition("/")[2]]
        return found

    def compare(found: dict[str, Any], value: Any, path: str) -> None:
        found = resolve(found)
        if found.get("type") == "array":
            for item in value:
                compare(found["items"], item, f"{path}[]")
        if "properties" not in found or path.endswith((".resources", ".affinity")):
            return
        assert found["additionalProperties"] is False, path
        assert set(found["properties"]) - {"global"} == set(value), path
        for name, inner in value.items():
            compare(found["properties"][name], inner, f"{path}.{name}")

    compare(schema, values, "")


def test_an_upgrade_keeps_the_secrets(helm: Helm) -> None:
    answer = helm.ask(values={}, upgrade={"router": {"replicas": 5}})
    before, after = Manifests(answer["manifest"], ""), Manifests(answer["upgraded"], "")
    assert after.one("Deployment")["spec"]["replicas"] == 5
    for suffix in ("-ray-auth", "-redis"):
        assert before.one("Secret", suffix)["data"] == after.one("Secret", suffix)["data"]
    fresh = helm.render(VALUE_SETS["default"])
    assert fresh.one("Secret", "-redis")["data"] != before.one("Secret", "-redis")["data"]


def test_what_is_set_arrives(helm: Helm) -> None:
    manifests = helm.render(VALUE_SETS["everything"])
    arguments = manifests.container("controller")["args"]
    for wanted in ("--tp=4", "--pp=2", "--replicas=2", "--device=cuda", "--model=/models/llama", "--model-name=llama",
                   "--token-budget=2048", "--allowed-host=headway.example.org"):  # fmt: skip
        assert wanted in arguments
    template = manifests.pod_templates()["worker h100"]["spec"]
    assert template["containers"][0]["resources"]["limits"] == {"memory": "128Gi", "nvidia.com/gpu": 8}
    assert (
        "nvidia.com/gpu"
        not in manifests.pod_templates()["worker spare"]["spec"]["containers"][0]["resources"]["limits"]
    )
    claims = [volume["persistentVolumeClaim"] for volume in template["volumes"] if "persistentVolumeClaim" in volume]
    assert claims == [{"claimName": "models", "readOnly": True}]
    for name, template in manifests.pod_templates().items():
        assert template["spec"]["imagePullSecrets"] == [{"name": "pull"}] and template["spec"]["nodeSelector"], name
    assert manifests.container("router")["image"] == "example.org/headway-router:1.2.3"
    assert manifests.one("Service", "-router")["spec"]["type"] == "LoadBalancer"


def test_the_state_lies_in_the_redis_that_was_chosen(helm: Helm) -> None:
    def state(name: str) -> list[str]:
        arguments = helm.render(VALUE_SETS[name]).container("controller")["args"]
        return [argument for argument in arguments if argument.startswith("--state")]

    assert state("default") == ["--state=redis://:$(REDIS_PASSWORD)@demo-headway-redis:6379/0"]
    assert state("external-redis") == ["--state=redis://:$(REDIS_PASSWORD)@redis.data.svc:6379/3"]
    assert state("minimal") == []
    manifests = helm.render(VALUE_SETS["minimal"])
    assert not manifests.kind("StatefulSet") and "gcsFaultToleranceOptions" not in manifests.one("RayCluster")["spec"]
    assert "No Redis" in manifests.notes
