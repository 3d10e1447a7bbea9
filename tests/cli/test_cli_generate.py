"""`headway generate` and `headway models`: what is on stdout, what on stderr, and the exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from headway.core import errors
from headway.tests.client.support.scripted_inference import ScriptedInference, fail_after, refuse

if TYPE_CHECKING:
    from headway.tests.cli.conftest import Command


def test_text_goes_to_stdout_and_nothing_else(headway: Command, servicer: ScriptedInference) -> None:
    done = headway("generate", "some prompt", "-n", "4", "--temperature", "0", "--top-k", "3", "--stop", "w3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "w0 w1 w2 \n", "")
    request = servicer.requests[0]
    assert (request.prompt.text, request.sampling.top_k, request.sampling.temperature) == ("some prompt", 3, 0.0)
    assert request.sampling.HasField("temperature") and not request.sampling.HasField("top_p")


def test_stats_go_to_stderr(headway: Command) -> None:
    done = headway("generate", "x" * 20, "-n", "2", "--stats")
    assert done.stdout == "w0 w1 \n"
    assert "20 prompt tokens (16 from cache), 2 new" in done.stderr and "ended by length" in done.stderr


def test_json_is_one_document(headway: Command) -> None:
    document = json.loads(headway("generate", "abc", "-n", "2", "--json", "--seed", "5").stdout)
    assert (document["text"], document["token_ids"], document["finish"]["reason"]) == ("w0 w1 ", [0, 1], "length")
    assert (document["started"]["seed"], document["usage"]["prompt_tokens"]) == (5, 3)


def test_a_dash_reads_stdin_as_it_is(headway: Command, servicer: ScriptedInference) -> None:
    assert headway("generate", "-", "-n", "1", stdin="two\nlines é\n").returncode == 0
    assert servicer.requests[0].prompt.text == "two\nlines é\n"
    done = headway("generate", "-", stdin=b"ok\xff")
    assert (done.returncode, done.stdout) == (1, "") and "not valid UTF-8 at byte 2" in done.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (errors.InvalidRequest("top_p must be above 0", field="sampling.top_p"), ["top_p must be above 0"]),
        (errors.NotFound("no model 'x'", field="model"), ["no model 'x'", "headway models"]),
        (errors.Overloaded("queues are full", retry_after_s=2), ["queues are full", "again in 2 s"]),
        (errors.Unavailable("no replica is ready", retry_after_s=60), ["no replica is ready", "again in 60 s"]),
    ],
)
def test_errors_say_what_to_do(
    headway: Command, servicer: ScriptedInference, error: errors.HeadwayError, words: list[str]
) -> None:
    servicer.script = [refuse(error)]
    done = headway("generate", "p")
    assert (done.returncode, done.stdout) == (1, "")
    assert all(word in done.stderr for word in words) and "Traceback" not in done.stderr


def test_an_error_after_some_text_keeps_the_text_and_fails(headway: Command, servicer: ScriptedInference) -> None:
    servicer.script = [fail_after(3, errors.Internal("internal error 0123"))]
    done = headway("generate", "p")
    assert (done.returncode, done.stdout) == (1, "w0 w1 ") and "internal error 0123" in done.stderr


def test_no_cluster_says_how_to_start_one(headway: Command) -> None:
    (headway.home / "cluster.json").unlink()
    done = headway("generate", "p")
    assert done.returncode == 1 and "no cluster runs here" in done.stderr and "headway up" in done.stderr


def test_a_cluster_that_is_gone_says_where_it_was(headway: Command) -> None:
    headway.write_cluster('{"grpc": "127.0.0.1:1"}')
    done = headway("models")
    assert done.returncode == 1 and "127.0.0.1:1" in done.stderr and "headway up" in done.stderr
    headway.write_cluster("{nonsense")
    done = headway("models")
    assert done.returncode == 1 and "cluster.json" in done.stderr and "Traceback" not in done.stderr


def test_the_address_can_be_named(headway: Command) -> None:
    address = json.loads((headway.home / "cluster.json").read_text())["grpc"]
    (headway.home / "cluster.json").unlink()
    assert headway("generate", "p", "-n", "1", "--address", address).stdout == "w0 \n"
    headway.env["HEADWAY_ADDRESS"] = address
    assert headway("generate", "p", "-n", "1").stdout == "w0 \n"
    done = headway("generate", "p", "--address", "http://127.0.0.1:8000")
    assert done.returncode == 1 and "gRPC" in done.stderr


def test_a_reader_that_leaves_ends_the_command_quietly(headway: Command, servicer: ScriptedInference) -> None:
    child = headway.start("generate", "p", "-n", "100000", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stderr is not None
    assert child.stdout.read(5) == b"w0 w1"
    child.stdout.close()
    assert child.wait(60) != 0
    with child.stderr:
        assert child.stderr.read() == b""
    assert servicer.cancelled.wait(10)


def test_an_interrupt_ends_the_request_on_the_server_too(headway: Command, servicer: ScriptedInference) -> None:
    servicer.script = [servicer.hang]
    child = headway.start("generate", "p", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.read(3) == b"w0 "
    child.send_signal(signal.SIGINT)
    _, complaint = child.communicate(timeout=60)
    assert child.returncode == 130 and b"Traceback" not in complaint
    assert servicer.cancelled.wait(10)


def test_models_as_a_table_and_as_json(headway: Command, servicer: ScriptedInference) -> None:
    table = headway("models").stdout.splitlines()
    assert table[0].split() == ["MODEL", "REPLICAS", "CONTEXT", "VOCABULARY", "FEATURES", "REVISION"]
    assert table[1].split() == ["scripted", "2", "1,024", "256", "generate,", "chat", "r1"]
    document = json.loads(headway("models", "--json").stdout)
    assert document["models"][0]["default_sampling"]["temperature"] == 0.5
    servicer.models.clear()
    done = headway("models")
    assert done.returncode == 1 and "no model yet" in done.stderr


def test_help_loads_nothing_heavy() -> None:
    probe = "import sys, headway.cli.main; print([m for m in %r if m in sys.modules])"
    heavy = ["grpc", "torch", "ray", "numpy", "transformers", "httpx", "headway.client"]
    done = subprocess.run([sys.executable, "-c", probe % heavy], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "[]", done
