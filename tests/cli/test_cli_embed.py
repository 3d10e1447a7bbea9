"""`headway embed`: a line of numbers for each text, or one document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from headway.proto.headway.v1 import pooling_pb2
from headway.tests.client.support.scripted_inference import ScriptedInference

if TYPE_CHECKING:
    from headway.tests.cli.conftest import Command


def test_a_line_for_each_text(headway: Command, servicer: ScriptedInference) -> None:
    done = headway("embed", "abc", "de", "--pooling", "mean", "--dimensions", "2", "--raw")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 0\n2 1\n", "")
    (request,) = servicer.embeds
    assert (request.pooling, request.dimensions, request.normalize) == (pooling_pb2.POOLING_MEAN, 2, False)


def test_json_is_one_document_and_bad_options_are_told(headway: Command) -> None:
    document = json.loads(headway("embed", "abc", "--json").stdout)
    assert (document["vectors"], document["usage"]["prompt_tokens"]) == ([[3.0, 0.0]], 3)
    done = headway("embed", "abc", "--pooling", "max")
    assert done.returncode != 0 and "pooling must be one of last, mean" in done.stderr
