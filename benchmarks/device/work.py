"""The least that a step has to do: what its roofline bound is made of."""

from __future__ import annotations

from typing import Any

from ...worker.execution.step_work import StepWork


class Work:
    """Of a dense model. Operations are products' alone: of every token with the layers' weights, of the sampled ones
    with the head's, and of each query with the keys and values that it sees."""

    def __init__(self, config: dict[str, Any]) -> None:
        hidden, dim = config["hidden_size"], config["head_dim"]
        heads = 2 * config["num_attention_heads"] + 2 * config["num_key_value_heads"]
        self._layers = config["num_hidden_layers"] * hidden * (heads * dim + 3 * config["intermediate_size"])
        self._head = config["vocab_size"] * hidden
        self._pair = 4 * config["num_hidden_layers"] * config["num_attention_heads"] * dim

    @property
    def weights(self) -> int:
        """That a step reads: all but the embedding, of which it reads a few rows."""
        return int(self._layers + self._head)

    def operations(self, work: StepWork) -> int:
        """Floating-point operations of a step: 2 a weight and token, and 4 a layer, query head, element of a head, and
        pair of a query and a token that it sees."""
        pairs = work.count * work.computed + work.count * (work.count + 1) // 2
        weights = self._layers * int(work.count.sum()) + self._head * int(work.sample.sum())
        return 2 * int(weights) + int(self._pair * pairs.sum())
