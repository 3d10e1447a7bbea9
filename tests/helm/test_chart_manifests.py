"""Each rendered object is one that Kubernetes takes, and the objects fit together."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest

from headway.tests.helm.support.manifests import Manifests, ports

VERSIONS = ["1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
CUSTOM = {"RayCluster", "ServiceMonitor"}
# ray.io/v1, as its operator defines it.
RAY_FIELDS = {
    "": {"rayVersion", "gcsFaultToleranceOptions", "headGroupSpec", "workerGroupSpecs"},
    "headGroupSpec": {"serviceType", "rayStartParams", "template"},
    "workerGroupSpecs": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
    "gcsFaultToleranceOptions": {"redisAddress", "redisPassword"},
}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(manifests: Manifests, version: str) -> None:
    for found in manifests.objects:
        if found["kind"] not in CUSTOM:
            kubernetes_validate.validate(found, version, strict=True)
    for name, template in manifests.pod_templates().items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **template["metadata"]}}
        kubernetes_validate.validate({**pod, "spec": template["spec"]}, version, strict=True), name


def test_the_validator_finds_what_is_wrong(manifests: Manifests) -> None:
    deployment = manifests.kind("Deployment")[0]
    wrong = {**deployment, "spec": {**deployment["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_the_ray_cluster_has_only_fields_that_its_operator_knows(manifests: Manifests) -> None:
    spec = manifests.one("RayCluster")["spec"]
    assert set(spec) <= RAY_FIELDS[""]
    assert set(spec["headGroupSpec"]) == RAY_FIELDS["headGroupSpec"]
    assert set(spec.get("gcsFaultToleranceOptions", {})) <= RAY_FIELDS["gcsFaultToleranceOptions"]
    for group in spec["workerGroupSpecs"]:
        assert set(group) == RAY_FIELDS["workerGroupSpecs"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    # KubeRay takes the first container as Ray's, and every start parameter as a string.
    for name, template in manifests.pod_templates().items():
        if name == "head" or name.startswith("worker "):
            assert template["spec"]["containers"][0]["name"].startswith("ray-")
    parameters = [spec["headGroupSpec"]["rayStartParams"], *(g["rayStartParams"] for g in spec["workerGroupSpecs"])]
    assert all(isinstance(value, str) for found in parameters for value in found.values())


def test_names_are_unique_and_short_enough(manifests: Manifests) -> None:
    names = [(found["kind"], found["metadata"]["name"]) for found in manifests.objects]
    assert len(names) == len(set(names))
    assert all(len(name) <= 63 for _, name in names)
    assert len(manifests.one("RayCluster")["metadata"]["name"]) <= 42


def test_every_service_leads_to_a_port_that_a_pod_opens(manifests: Manifests) -> None:
    services = manifests.kind("Service")
    assert {"http", "grpc", "admin", "admin-grpc"} <= {
        port["name"] for found in services for port in found["spec"]["ports"]
    }
    for service in services:
        (template,) = manifests.selected(service["spec"]["selector"])
        for port in service["spec"]["ports"]:
            assert ports(template)[port["targetPort"]] == port["port"], service["metadata"]["name"]


def test_who_makes_pods_selects_them_and_nothing_else(manifests: Manifests) -> None:
    for made in (*manifests.kind("Deployment"), *manifests.kind("StatefulSet"), *manifests.kind("PodDisruptionBudget")):
        selected = manifests.selected(made["spec"]["selector"]["matchLabels"])
        assert len(selected) == 1, made["metadata"]["name"]
    for made in (*manifests.kind("Deployment"), *manifests.kind("StatefulSet")):
        assert manifests.selected(made["spec"]["selector"]["matchLabels"]) == [made["spec"]["template"]]
    for made in manifests.kind("StatefulSet"):
        assert made["spec"]["serviceName"] in {found["metadata"]["name"] for found in manifests.kind("Service")}


def test_probes_ask_ports_that_their_container_opens(manifests: Manifests) -> None:
    for container in manifests.containers():
        opened = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
        assert "readinessProbe" in container and "livenessProbe" in container, container["name"]
        for probe in (container.get(f"{kind}Probe", {}) for kind in ("startup", "liveness", "readiness")):
            for way in ("httpGet", "tcpSocket"):
                if way in probe:
                    assert probe[way]["port"] in opened
            if "grpc" in probe:
                assert probe["grpc"]["port"] in opened.values()


def test_every_pod_is_locked_down(manifests: Manifests) -> None:
    for name, template in manifests.pod_templates().items():
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not any("hostPath" in volume for volume in pod.get("volumes", []))
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]


def test_mounts_have_volumes_and_scratch_space_is_writable(manifests: Manifests) -> None:
    for made in (*manifests.kind("StatefulSet"), *manifests.kind("Deployment")):
        made["spec"]["template"]["claims"] = [
            claim["metadata"]["name"] for claim in made["spec"].get("volumeClaimTemplates", [])
        ]
    for template in manifests.pod_templates().values():
        volumes = {volume["name"] for volume in template["spec"].get("volumes", [])} | set(template.pop("claims", []))
        for container in template["spec"]["containers"]:
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            assert {mount["name"] for mount in mounts.values()} <= volumes
            assert ("/tmp" in mounts) or ("/data" in mounts)
            if container["name"] in ("ray-head", "ray-worker", "controller"):
                assert "/dev/shm" in mounts
    head = manifests.pod_templates()["head"]["spec"]["containers"]
    # The controller joins Ray through the session that lies in the shared /tmp.
    assert head[0]["volumeMounts"] == head[1]["volumeMounts"]


def test_service_accounts_and_secrets_exist_or_were_named(manifests: Manifests) -> None:
    accounts = {found["metadata"]["name"] for found in manifests.kind("ServiceAccount")}
    used = {template["spec"]["serviceAccountName"] for template in manifests.pod_templates().values()}
    assert accounts in (used, set())
    made = {found["metadata"]["name"]: set(found["data"]) for found in manifests.kind("Secret")}
    given = {"ray-token": {"token"}, "redis-password": {"password"}, "s": {"k"}}
    references = [env["valueFrom"]["secretKeyRef"] for container in manifests.containers() for env in container["env"]
                  if "secretKeyRef" in env.get("valueFrom", {})]  # fmt: skip
    assert references
    for reference in references:
        assert reference["key"] in (made | given)[reference["name"]]
    # Nothing here calls the Kubernetes API.
    assert not manifests.kind("Role") and not manifests.kind("ClusterRole")


def test_variables_in_arguments_are_defined_before(manifests: Manifests) -> None:
    for container in manifests.containers():
        defined = {env["name"] for env in container["env"]}
        used = set(re.findall(r"\$\((\w+)\)", " ".join(container.get("args", []))))
        assert used <= defined, container["name"]


def test_a_pod_has_time_to_finish_its_streams(manifests: Manifests) -> None:
    router = manifests.one("Deployment")["spec"]["template"]["spec"]
    (container,) = router["containers"]
    lame_duck = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    (grace,) = [int(arg.removeprefix("--grace=")) for arg in container["args"] if arg.startswith("--grace=")]
    assert router["terminationGracePeriodSeconds"] > lame_duck + grace
    # Two failed readiness probes must fit into the time in which requests still arrive.
    probe = container["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < lame_duck


def test_network_policies_select_pods_and_their_ports(manifests: Manifests) -> None:
    for policy in manifests.kind("NetworkPolicy"):
        targets = manifests.selected(policy["spec"]["podSelector"]["matchLabels"])
        assert targets, policy["metadata"]["name"]
        opened = {port for template in targets for port in ports(template).values()}
        for rule in policy["spec"]["ingress"]:
            assert {port["port"] for port in rule.get("ports", [])} <= opened
        for rule in (*policy["spec"]["ingress"], *policy["spec"].get("egress", [])):
            for peer in (*rule.get("from", []), *rule.get("to", [])):
                if "podSelector" in peer:
                    assert manifests.selected(peer["podSelector"]["matchLabels"])


def admitted(manifests: Manifests, caller: str, callee: str, port: int) -> bool:
    """Whether the policies let pods of one component open a port of another, by ingress and by egress."""

    def allows(component: str, other: str, direction: str, end: str) -> bool:
        rules = [
            rule
            for policy in manifests.kind("NetworkPolicy")
            if policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
            and direction in policy["spec"]["policyTypes"]
            for rule in policy["spec"][direction.lower()]
        ]
        governed = any(
            policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
            and direction in policy["spec"]["policyTypes"]
            for policy in manifests.kind("NetworkPolicy")
        )
        return not governed or any(
            (end not in rule or any(_is(peer, other) for peer in rule[end]))
            and ("ports" not in rule or port in {found["port"] for found in rule["ports"]})
            for rule in rules
        )

    return allows(callee, caller, "Ingress", "from") and allows(caller, callee, "Egress", "to")


def _is(peer: dict[str, Any], component: str) -> bool:
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    return bool(labels.get("app.kubernetes.io/component") == component)


@pytest.mark.parametrize(
    ("caller", "callee", "port"),
    [
        ("router", "head", 8003),
        ("router", "worker", 45678),
        ("worker", "worker", 45678),
        ("worker", "head", 6379),
        ("worker", "head", 8003),
        ("head", "worker", 10002),
        ("head", "redis", 6379),
    ],
)
def test_policies_let_the_planes_through(manifests: Manifests, caller: str, callee: str, port: int) -> None:
    assert admitted(manifests, caller, callee, port)


def test_policies_keep_others_out(helm: Any) -> None:
    manifests = helm.render({})
    assert not admitted(manifests, "router", "redis", 6379)
    assert not admitted(manifests, "worker", "redis", 6379)
    assert not admitted(manifests, "redis", "head", 8003)
    assert not admitted(manifests, "router", "head", 8002)
    assert not admitted(manifests, "stranger", "worker", 45678)
    assert not admitted(manifests, "stranger", "head", 8003)
    assert admitted(manifests, "stranger", "router", 8001)


def test_notes_name_what_exists(manifests: Manifests) -> None:
    services = {found["metadata"]["name"]: found for found in manifests.kind("Service")}
    forwards = re.findall(r"port-forward service/(\S+)((?: \d+)+)", manifests.notes)
    assert len(forwards) == 2
    for name, numbers in forwards:
        assert {int(number) for number in numbers.split()} <= {port["port"] for port in services[name]["spec"]["ports"]}
    (deployment,) = re.findall(r"deployment/(\S+)", manifests.notes)
    assert deployment == manifests.one("Deployment")["metadata"]["name"]
    assert "<no value>" not in manifests.notes + manifests.text


def test_service_monitors_scrape_a_port_that_exists(manifests: Manifests) -> None:
    for monitor in manifests.kind("ServiceMonitor"):
        matched = [
            service
            for service in manifests.kind("Service")
            if monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        ]
        # Not the headless one too: every router would be scraped twice.
        (service,) = matched
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
