"""A Kubernetes API just real enough for Helm: discovery, and objects that are kept as they come. It checks nothing."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from headway.tests.helm.support import secret_protobuf

# group/version -> kinds that charts of ours use.
KINDS = {
    "v1": ["Secret", "Service", "ServiceAccount", "ConfigMap", "Pod", "PersistentVolumeClaim", "Namespace"],
    "apps/v1": ["Deployment", "StatefulSet"],
    "policy/v1": ["PodDisruptionBudget"],
    "networking.k8s.io/v1": ["NetworkPolicy", "Ingress"],
    "rbac.authorization.k8s.io/v1": ["Role", "RoleBinding"],
    "monitoring.coreos.com/v1": ["ServiceMonitor"],
    "ray.io/v1": ["RayCluster"],
}
VERBS = ["create", "delete", "get", "list", "patch", "update"]


def plural(kind: str) -> str:
    return kind.lower()[:-1] + "ies" if kind.endswith("y") else kind.lower() + "s"


def plural_list(path: str) -> str:
    """The kind of a collection's list."""
    name = path.rsplit("/", 1)[-1]
    return next(kind for kinds in KINDS.values() for kind in kinds if plural(kind) == name) + "List"


def discovery(path: str) -> dict[str, Any] | None:
    """The answer to a discovery path, None for other paths."""
    if path == "/version":
        return {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        versions = [{"groupVersion": name, "version": name.split("/")[1]} for name in KINDS if "/" in name]
        groups = [
            {"name": found["groupVersion"].split("/")[0], "versions": [found], "preferredVersion": found}
            for found in versions
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    kinds = KINDS.get(path.removeprefix("/apis/").removeprefix("/api/"))
    if kinds is None:
        return None
    resources = [
        {"name": plural(kind), "singularName": kind.lower(), "namespaced": kind != "Namespace", "kind": kind}
        | {"verbs": VERBS}
        for kind in kinds
    ]
    group_version = path.removeprefix("/apis/").removeprefix("/api/")
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


class FakeKubernetes:
    """Listens on a free port of 127.0.0.1. `objects` maps each object's path to the object."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        fake = self

        class Handler(_Handler):
            objects = fake.objects

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kubeconfig(self) -> str:
        return f"""apiVersion: v1
kind: Config
clusters: [{{name: fake, cluster: {{server: "http://127.0.0.1:{self._server.server_address[1]}"}}}}]
contexts: [{{name: fake, context: {{cluster: fake, user: nobody, namespace: default}}}}]
users: [{{name: nobody, user: {{}}}}]
current-context: fake
"""

    def close(self) -> None:
        self._server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, dict[str, Any]]

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        found = discovery(url.path) or self.objects.get(url.path)
        if found is not None:
            self._answer(200, found)
        elif url.path.rsplit("/", 1)[-1] in {plural(kind) for kinds in KINDS.values() for kind in kinds}:
            self._answer(200, self._list(url.path, parse_qs(url.query).get("labelSelector", [""])[0]))
        else:
            self._answer(404, {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})

    def do_POST(self) -> None:
        body = self._object()
        self.objects[f"{urlsplit(self.path).path}/{body['metadata']['name']}"] = body
        self._answer(201, body)

    def do_PUT(self) -> None:
        body = self._object()
        self.objects[urlsplit(self.path).path] = body
        self._answer(200, body)

    def do_PATCH(self) -> None:
        self._body()
        self._answer(200, self.objects[urlsplit(self.path).path])

    def do_DELETE(self) -> None:
        self.objects.pop(urlsplit(self.path).path, None)
        self._answer(200, {"kind": "Status", "status": "Success"})

    def _list(self, path: str, selector: str) -> dict[str, Any]:
        wanted = dict(part.split("=", 1) for part in selector.split(",") if "=" in part)
        items = [
            found
            for name, found in self.objects.items()
            if name.rpartition("/")[0] == path and wanted.items() <= found["metadata"].get("labels", {}).items()
        ]
        return {"kind": plural_list(path), "apiVersion": "v1", "metadata": {}, "items": items}

    def _object(self) -> dict[str, Any]:
        body = self._body()
        found: dict[str, Any] = secret_protobuf.decode(body) if body.startswith(b"k8s") else json.loads(body)
        return found

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().strip(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _answer(self, code: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
