"""The web side over real HTTP."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import pytest_asyncio

from headway.controller.http import build_app
from headway.controller.process import _web_server

# One loop for all: see test_controller.py.
pytestmark = pytest.mark.asyncio(loop_scope="session")


@asynccontextmanager
async def browser(controller) -> AsyncIterator[httpx.AsyncClient]:
    app = build_app(controller, lambda: True, frozenset({"admin.example"}))
    async with (
        _web_server(app, "127.0.0.1", 0) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def web(up) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(up.controller) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def calm_web(calm) -> AsyncIterator[httpx.AsyncClient]:
    async with browser(calm.controller) as client:
        yield client


def error(response: httpx.Response) -> dict[str, str]:
    return response.json()["error"]


async def test_probes_and_page(calm_web: httpx.AsyncClient) -> None:
    assert (await calm_web.get("/health")).status_code == 200
    assert (await calm_web.get("/ready")).status_code == 200
    page = await calm_web.get("/")
    assert page.status_code == 200
    assert "Headway" in page.text
    assert page.headers["content-type"].startswith("text/html")


async def test_not_ready_says_so(calm) -> None:
    app = build_app(calm.controller, lambda: False, frozenset())
    async with _web_server(app, "127.0.0.1", 0) as port, httpx.AsyncClient() as client:
        response = await client.get(f"http://127.0.0.1:{port}/ready")
    assert response.status_code == 503


async def test_one_look_is_protobuf_json(calm_web: httpx.AsyncClient) -> None:
    cluster = (await calm_web.get("/api/cluster")).json()
    assert cluster["snapshot"] is True
    assert cluster["models"] == [
        {"name": "demo", "path": "/m", "desiredReplicas": 2, "tensorParallel": 1, "pipelineParallel": 1}
    ]
    assert [(r["id"], r["state"]) for r in cluster["replicas"]] == [
        ("demo-0", "REPLICA_STATE_READY"),
        ("demo-1", "REPLICA_STATE_READY"),
    ]


async def test_the_stream_starts_whole_and_goes_on_with_changes(web: httpx.AsyncClient, up) -> None:
    seen: list[dict[str, object]] = []
    async with web.stream("GET", "/api/watch") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.aiter_lines()
        async with asyncio.timeout(20):
            async for line in lines:
                if not line.startswith("data: "):
                    continue
                seen.append(json.loads(line.removeprefix("data: ")))
                if len(seen) == 1:
                    await web.post("/api/scale", json={"model": "demo", "replicas": 1})
                if any("removedReplicaIds" in event for event in seen):
                    break
    assert seen[0]["snapshot"] is True
    assert all("snapshot" not in event for event in seen[1:])
    versions = [int(str(event["version"])) for event in seen]
    assert versions == sorted(set(versions))


async def test_changes_answer_with_their_effect(web: httpx.AsyncClient, up) -> None:
    response = await web.post("/api/scale", json={"model": "demo", "replicas": 3})
    assert response.status_code == 200
    assert response.json()["effect"]["steps"] == ["start 1 replica of demo"]
    response = await web.post("/api/drain", json={"replicaId": "demo-0", "timeoutSeconds": 0.5})
    assert response.json()["effect"]["steps"][0] == "drain demo-0 for at most 0.5 s, then stop it"
    await up.until(lambda: "demo-0" not in up.states())


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/api/scale", {"model": "demo"}, 400, "replicas"),
        ("/api/scale", {"model": "demo", "replicas": "2"}, 400, "replicas"),
        ("/api/scale", {"model": "demo", "replicas": True}, 400, "replicas"),
        ("/api/scale", {"model": "demo", "replicas": -1}, 400, "replicas"),
        ("/api/scale", {"model": "demo", "replicas": 2**40}, 400, "replicas"),
        ("/api/scale", {"model": "demo", "replicas": 1, "when": "now"}, 400, "when"),
        ("/api/scale", {"model": "nope", "replicas": 1}, 404, "model"),
        ("/api/scale", [1], 400, ""),
        ("/api/drain", {"replicaId": "nope"}, 404, "replica_id"),
        ("/api/drain", {"replicaId": "demo-0", "timeoutSeconds": -1}, 400, "timeoutSeconds"),
    ],
)
async def test_bad_changes_are_refused_by_field(
    calm_web, calm, path: str, body: object, status: int, field: str
) -> None:
    response = await calm_web.post(path, json=body)
    assert (response.status_code, error(response)["field"]) == (status, field)
    assert calm.controller.state.models["demo"].replicas == 2


async def test_no_json_is_refused(calm_web: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    assert (await calm_web.post("/api/scale", content=b"{", headers=headers)).status_code == 400
    assert (await calm_web.post("/api/scale", content=b" " * 100_000, headers=headers)).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
)
async def test_other_sites_cannot_change_anything(calm_web: httpx.AsyncClient, calm, headers: dict[str, str]) -> None:
    content = b'{"model": "demo", "replicas": 0}'
    response = await calm_web.post(
        "/api/scale", content=content, headers={"Content-Type": "application/json"} | headers
    )
    assert response.status_code == 403
    assert calm.controller.state.models["demo"].replicas == 2


async def test_other_names_cannot_read_either_and_its_own_can(calm_web: httpx.AsyncClient) -> None:
    assert (await calm_web.get("/api/cluster", headers={"Host": "evil.example"})).status_code == 403
    for host in ("localhost:1", "[::1]:1", "10.0.0.7:8002", "admin.example", "Admin.Example:443"):
        assert (await calm_web.get("/api/cluster", headers={"Host": host})).status_code == 200
    own = {"Origin": "http://admin.example", "Host": "admin.example", "Sec-Fetch-Site": "same-origin"}
    body = {"model": "demo", "replicas": 2}
    assert (await calm_web.post("/api/scale", json=body, headers=own)).status_code == 200


async def test_metrics_show_every_state(web: httpx.AsyncClient, up) -> None:
    text = (await web.get("/metrics")).text
    assert 'headway_desired_replicas{model="demo"} 2.0' in text
    assert 'headway_replicas{model="demo",state="ready"} 2.0' in text
    assert 'headway_replicas{model="demo",state="unhealthy"} 0.0' in text
    assert 'headway_replica_total_pages{model="demo",replica="demo-1"} 64.0' in text
    assert 'headway_replica_steps_total{model="demo",replica="demo-1"} 0.0' in text
    await asyncio.to_thread(up.supervisor.leaders["demo-0"].die)
    await up.until(lambda: up.replica("demo-0").restarts == 1)
    text = (await web.get("/metrics")).text
    assert 'headway_replica_restarts_total{model="demo",replica="demo-0"} 1.0' in text


async def test_a_taken_port_is_an_error_that_names_it(calm) -> None:
    app = build_app(calm.controller, lambda: True, frozenset())
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(_web_server(app, "127.0.0.1", 0))
        with pytest.raises(OSError, match=str(port)):
            await stack.enter_async_context(_web_server(app, "127.0.0.1", port))
