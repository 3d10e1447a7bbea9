"""Defaults that fit the machine, and what is refused before anything starts."""

import shutil
import socket
from pathlib import Path

import pytest
import typer

from headway.cli.cluster import options
from headway.cli.cluster.options import UpOptions, resolve
from headway.cli.cluster.ports import check_free
from headway.cli.commands import up
from headway.cli.main import app
from headway.controller import settings
from headway.core.errors import ConfigError
from headway.core.specs import GroupSpec
from headway.demo import DEMO_DIR

PLAIN = {
    "model": "demo",
    "model_name": "",
    "replicas": None,
    "tp": 1,
    "pp": 1,
    "device": "auto",
    "port": 8000,
    "engine": (),
}


@pytest.mark.parametrize(
    ("devices", "given", "expected"),
    [
        ("", {}, ("cpu", 2)),
        ("", {"tp": 2}, ("cpu", 1)),
        ("", {"replicas": 2, "tp": 2}, ("cpu", 2)),
        ("0,1,2,3", {}, ("cuda", 4)),
        ("0,1,2,3", {"tp": 2}, ("cuda", 2)),
        ("0,1,2,3", {"tp": 2, "pp": 2}, ("cuda", 1)),
        ("0,1", {"device": "cpu"}, ("cpu", 2)),
    ],
)
def test_defaults_fit_the_machine(monkeypatch: pytest.MonkeyPatch, devices, given, expected) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    found = resolve(**{**PLAIN, **given})
    assert (found.device, found.replicas) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tp": 0}, "--tp must be at least 1, got 0"),
        ({"pp": -1}, "--pp must be at least 1, got -1"),
        ({"replicas": 0}, "--replicas must be at least 1, got 0"),
        ({"port": 65533}, "--port must be 0 or at least 1 and at most 65532, got 65533"),
        ({"port": -1}, "--port"),
        ({"device": "tpu"}, "--device must be auto, cpu or cuda, got 'tpu'"),
        ({"device": "cuda", "tp": 4}, "need 4 GPUs, this machine shows 2"),
    ],
)
def test_what_cannot_be_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, given, words) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(ConfigError) as caught:
        resolve(**{**PLAIN, **given})
    assert words in str(caught.value)


GIVEN = {
    "--dtype": "float32",
    "--load-format": "dummy",
    "--page-size": 32,
    "--pages": 64,
    "--memory-fraction": 0.25,
    "--max-sequences": 3,
    "--token-budget": 65,
    "--max-context-tokens": 66,
    "--max-waiting": 7,
    "--watermark-pages": 8,
    "--batch-invariant": "off",
    "--max-adapters": 9,
    "--max-lora-rank": 10,
    "--host-pages": 11,
    "--kv-disk": "here",
    "--disk-pages": 12,
    "--kv-dtype": "int8",
    "--weight-dtype": "int8",
    "--graph-mib": 13,
    "--step-timeout": 14.0,
}
SWITCHES = ["--ignore-remote-code", "--no-admission-forecast", "--symmetric-memory"]


def test_every_flag_of_up_reaches_the_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[UpOptions] = []
    monkeypatch.setattr(up, "_detached", lambda wanted, as_json: asked.append(wanted))

    def run(*arguments: str) -> GroupSpec:
        app(["up", "--detach", *arguments], standalone_mode=False)
        return settings.parse(asked[-1].engine).model.group("demo-0", host="", controller_address="")

    command = typer.main.get_command(app).commands["up"]  # type: ignore[attr-defined]
    every = {name for option in command.params for name in (*option.opts, *option.secondary_opts) if name[:2] == "--"}
    of_cluster = {"--model", "--model-name", "--replicas", "--tp", "--pp", "--device", "--port", "--detach", "--json"}
    assert every - of_cluster == {*GIVEN, *SWITCHES, "--admission-forecast"}
    assert run() == settings.parse([]).model.group("demo-0", host="", controller_address="")
    assert asked[-1].engine == ("--dtype=auto", "--load-format=auto"), "the rest is chosen where the device is known"
    group = run(*(f"{flag}={value}" for flag, value in GIVEN.items()), *SWITCHES)
    names = {"--pages": "total_pages", "--step-timeout": "step_timeout_s"}
    for flag, value in {**GIVEN, "--kv-disk": str(tmp_path / "here")}.items():
        name = names.get(flag, flag[2:].replace("-", "_"))
        assert getattr(group.engine if hasattr(group.engine, name) else group, name) == value
    assert (group.ignore_remote_code, group.symmetric_memory, group.engine.admission_forecast) == (True, True, False)


def test_ports_follow_each_other() -> None:
    assert resolve(**PLAIN).ports() == {"http": 8000, "grpc": 8001, "admin": 8002, "admin_grpc": 8003}
    assert set(resolve(**{**PLAIN, "port": 0}).ports().values()) == {0}


def test_gpus_are_counted_from_device_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert options.visible_gpus() == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5ef")
    assert options.visible_gpus() == 2


def test_a_taken_port_is_named_with_its_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} .*admin grpc"):
            check_free({"http": 0, "admin_grpc": port})
    check_free({"http": port})


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", "junk", "tokenizer.json cannot be read"),
        ("chat_template.jinja", "{{ messages", "chat template cannot be read"),
    ],
)
def test_a_model_without_readable_text_is_refused_before_anything_starts(
    tmp_path: Path, file: str, content: str | None, words: str
) -> None:
    model = shutil.copytree(DEMO_DIR, tmp_path / "model")
    assert resolve(**{**PLAIN, "model": str(model)}).model == str(model)
    (model / file).unlink()
    if content is not None:
        (model / file).write_text(content)
    with pytest.raises(ConfigError, match=words):
        resolve(**{**PLAIN, "model": str(model)})
