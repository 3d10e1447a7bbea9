"""The compose file against the images and the programs that it names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from headway.controller.settings import parse
from headway.tests.deploy.dockerfile import stages

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ["controller", "router"]

each_of_ours = pytest.mark.parametrize("name", OURS)


def image(name: str) -> Path:
    build = SERVICES[name]["build"]
    return Path((ROOT / "deploy" / build["context"] / build["dockerfile"]).resolve())


def flags(name: str) -> dict[str, str]:
    return dict(word.removeprefix("--").split("=", 1) for word in SERVICES[name]["command"][3:])


def test_has_redis_controller_and_router() -> None:
    assert set(SERVICES) == {"redis", *OURS}


@each_of_ours
def test_images_are_built_from_files_that_exist(name: str) -> None:
    assert image(name).is_file()
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version and SERVICES[name]["image"].endswith(f":{version[1]}")


def test_the_foreign_image_has_a_version() -> None:
    assert re.fullmatch(r"redis:\d+\.\d+[\w-]*", SERVICES["redis"]["image"])


@each_of_ours
def test_each_flag_is_known_to_the_program(name: str) -> None:
    command = SERVICES[name]["command"]
    assert command[:3] == ["python", "-m", f"headway.{name}"]
    shown = subprocess.run([sys.executable, *command[1:3], "--help"], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    known = set(re.findall(r"--[a-z-]+", shown.stdout))
    assert {f"--{flag}" for flag in flags(name)} <= known


def test_the_controller_takes_every_value() -> None:
    settings = parse(SERVICES["controller"]["command"][3:])
    assert settings.group_host == "controller"
    assert settings.state.removeprefix("redis://").split(":")[0] in SERVICES
    assert settings.model.replicas == 2


def test_the_router_asks_the_controller_s_grpc_port() -> None:
    assert flags("router")["controller"] == f"controller:{flags('controller')['grpc-port']}"


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_the_loopback_only(name: str) -> None:
    for published in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", published)


@each_of_ours
def test_published_ports_are_those_that_the_program_listens_on(name: str) -> None:
    published = {entry.rsplit(":", 1)[1] for entry in SERVICES[name]["ports"]}
    listens = {value for flag, value in flags(name).items() if flag in ("http-port", "grpc-port")}
    assert published == listens == set(stages(image(name))[-1].last("EXPOSE").split())
    assert flags(name)["host"] == "0.0.0.0"


def test_nobody_waits_for_a_service_that_cannot_become_healthy() -> None:
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            assert wait["condition"] == "service_healthy"
            assert "healthcheck" in SERVICES[name] or stages(image(name))[-1].all("HEALTHCHECK")


def test_redis_is_reached_by_the_controller_alone() -> None:
    assert "ports" not in SERVICES["redis"]
    (network,) = SERVICES["redis"]["networks"]
    assert COMPOSE["networks"][network]["internal"] is True
    assert [name for name in OURS if network in SERVICES[name].get("networks", [])] == ["controller"]


def test_named_volumes_are_declared() -> None:
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert mounted == set(COMPOSE["volumes"])


@each_of_ours
def test_nothing_of_ours_gains_privileges(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
