"""The values that every test of manifests runs with."""

from __future__ import annotations

from typing import Any

TOLERATION = {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
        }
    }
}
PLACEMENT = {
    "nodeSelector": {"pool": "serving"},
    "tolerations": [TOLERATION],
    "affinity": AFFINITY,
    "priorityClassName": "high",
    "podAnnotations": {"example.org/team": "inference"},
}
ENV = [
    {"name": "HEADWAY_EXAMPLE", "value": "1"},
    {"name": "HEADWAY_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
]
PEER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "callers"}}}


def workers(**changes: Any) -> dict[str, Any]:
    """A group of workers with everything set."""
    return {
        "name": "h100",
        "replicas": 2,
        "gpus": 8,
        "gpuResource": "nvidia.com/gpu",
        "resources": {"requests": {"cpu": "16", "memory": "64Gi"}, "limits": {"memory": "128Gi"}},
        "sharedMemory": "16Gi",
        "terminationGracePeriodSeconds": 300,
        **PLACEMENT,
        "extraEnv": ENV,
        **changes,
    }


VALUE_SETS: dict[str, dict[str, Any]] = {
    "default": {},
    "minimal": {
        "router": {"replicas": 1, "podDisruptionBudget": {"enabled": False}, "spreadOverNodes": False},
        "model": {"path": "demo", "replicas": 1, "device": "cpu"},
        "redis": {"enabled": False},
        "serviceAccount": {"create": False},
        "networkPolicy": {"enabled": False},
    },
    "external-redis": {
        "redis": {"enabled": False},
        "externalRedis": {"address": "redis.data.svc:6379", "database": 3, "existingSecret": "redis-password"},
    },
    "everything": {
        "fullnameOverride": "llm",
        "imagePullSecrets": ["pull"],
        "images": {"router": {"repository": "example.org/headway-router", "tag": "1.2.3", "pullPolicy": "Always"}},
        "model": {
            "path": "/models/llama",
            "name": "llama",
            "replicas": 2,
            "tensorParallel": 4,
            "pipelineParallel": 2,
            "device": "cuda",
            "dtype": "bfloat16",
            "existingClaim": "models",
        },
        "router": {
            "replicas": 3,
            "service": {"type": "LoadBalancer", "annotations": {"example.org/scheme": "internal"}},
            "podDisruptionBudget": {"enabled": True, "maxUnavailable": "34%"},
            "extraEnv": ENV,
            **PLACEMENT,
        },
        "head": PLACEMENT,
        "controller": {
            "allowedHosts": ["headway.example.org"],
            "extraArgs": ["--token-budget=2048"],
            "service": {"type": "NodePort", "annotations": {"example.org/scheme": "internal"}},
            "extraEnv": ENV,
        },
        "workers": [workers(), workers(name="spare", replicas=0, gpus=0)],
        "ray": {"auth": {"existingSecret": "ray-token"}},
        "redis": {
            "auth": {"existingSecret": "redis-password"},
            "persistence": {"storageClass": "fast", "size": "8Gi"},
            "nodeSelector": {"pool": "data"},
            "tolerations": [TOLERATION],
        },
        "serviceAccount": {"annotations": {"example.org/role": "serving"}},
        "networkPolicy": {
            "clients": [PEER],
            "operators": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "monitoring": [PEER],
        },
        "serviceMonitor": {"enabled": True, "interval": "30s", "labels": {"release": "prometheus"}},
        "logs": {"level": "DEBUG", "format": "text"},
    },
}
