"""`headway bench` as a command."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from headway.core.errors import Unavailable
from headway.tests.client.support.scripted_inference import ScriptedInference, refuse

if TYPE_CHECKING:
    from headway.tests.cli.conftest import Command


def test_json_is_one_document_and_progress_goes_to_stderr(headway: Command, servicer: ScriptedInference) -> None:
    done = headway(
        "bench", "--concurrency", "1,2", "--requests", "6", "--input-tokens", "20-30", "--output-tokens", "4",
        "--shared-prefix", "16", "--warmup", "2", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [(run["mode"], run["concurrency"], run["output_tokens"]) for run in document["runs"]] == [
        ("closed", 1, 24),
        ("closed", 2, 24),
    ]
    assert set(document["runs"][0]["ttft_ms"]) == {"mean", "p50", "p90", "p99", "max"}
    assert document["workload"]["input_tokens"] == "20-30" and document["model"]["name"] == "scripted"
    assert "warm-up: 2 of 2" in done.stderr and "2 at once: 6 of 6 requests" in done.stderr


def test_the_table_has_a_column_a_run(headway: Command) -> None:
    done = headway("bench", "--rate", "100,200", "--requests", "5", "--input-tokens", "9", "--output-tokens", "3")
    assert done.returncode == 0, done.stderr
    assert "5 requests a run, 9 tokens in, 3 out" in done.stdout
    assert "100/s" in done.stdout and "200/s" in done.stdout and "TTFT ms" in done.stdout


def test_when_nothing_completes_the_command_fails(headway: Command, servicer: ScriptedInference) -> None:
    servicer.script = [refuse(Unavailable("no replica")) for _ in range(4)]
    done = headway("bench", "--concurrency", "2", "--requests", "4", "--warmup", "0")
    assert done.returncode == 1 and "no request completed" in done.stderr
    assert "4 requests failed with UNAVAILABLE" in done.stdout


def test_an_interrupt_ends_it_at_once(headway: Command, servicer: ScriptedInference) -> None:
    child = headway.start("bench", "--requests", "1000000", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert servicer.started.wait(60)
    child.send_signal(signal.SIGINT)
    _, complaint = child.communicate(timeout=60)
    assert child.returncode == 130 and b"Traceback" not in complaint, complaint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--concurrency", "1,x"], "--concurrency"),
        (["--rate", "-1"], "--rate"),
        (["--input-tokens", "5000"], "context is 1024"),
        (["--output-tokens", "many"], "--output-tokens"),
        (["--shared-prefix", "128"], "below the shortest input"),
        (["--requests", "0"], "--requests"),
    ],
)
def test_what_cannot_be_is_refused_by_name(headway: Command, arguments: list[str], words: str) -> None:
    done = headway("bench", *arguments)
    assert (done.returncode, done.stdout) == (2, "") and words in done.stderr and "Traceback" not in done.stderr
