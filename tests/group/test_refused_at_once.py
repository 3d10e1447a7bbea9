"""What no group can be is refused by the command before it starts a single rank."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from headway.worker.group import group

def launch(*_):
    raise AssertionError("a rank is started")

group.Followers = launch
sys.argv = ["worker", *sys.argv[1:]]
from headway.worker.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--tp", "2", "--pp", "7"], "pp = 7 does not divide num_hidden_layers = 6; pp can be 1, 2, 3, 6"),
        (["--tp", "16"], "tp = 16 does not divide num_attention_heads = 4; tp can be 1, 2, 4"),
    ],
)
def test_a_split_that_cannot_be(arguments: list[str], why: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1 and why in ended.stderr, ended.stderr
