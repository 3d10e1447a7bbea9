"""KV kept as bf16, fp8 or int8: what it costs in accuracy, memory and names, alone and split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rank_group import RankGroup, spec_for
from script import generated
from tiny_llamas import Oracle

from headway.core.errors import ConfigError
from headway.core.specs import KV_DTYPES, EngineSpec
from headway.worker.execution.model_info import read_model_info
from headway.worker.model.registry import read_config

# Largest error of a logit as a share of the spread of logits: twice what was found.
BOUNDS = {"bf16": 0.1, "fp8": 0.6, "int8": 0.2}


# Heads of 16 elements, the demo model; capped scores and windows; norms of each head.
@pytest.mark.parametrize("name", ["gqa-tied", "demo", "gemma2", "gemma3"])
@pytest.mark.parametrize("kv_dtype", BOUNDS)
def test_logits_are_near_those_of_exact_keys_and_values(
    name: str, kv_dtype: str, group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]
) -> None:
    oracle, split = Oracle(checkpoint(name)), []
    for shape in ((1, 1), (2, 1)):
        script = generated(group_of(*shape), checkpoint(name), EngineSpec(page_size=8, kv_dtype=kv_dtype))
        for row in script.rows.values():
            expected = oracle.logits(row.tokens).numpy()[row.prompt - 1 : -1]
            error = np.abs(np.stack(row.logits) - expected).max() / expected.std()
            assert 0 < error < BOUNDS[kv_dtype]
        split.append([row.output for row in script.rows.values()])
    assert split[0] == split[1]


def test_memory_and_revision_follow_the_type(checkpoint: Callable[[str], Path]) -> None:
    model = checkpoint("gqa-tied")
    found = {
        kv: read_model_info(model, spec_for(model, 1, 1, engine=EngineSpec(page_size=8, kv_dtype=kv)))
        for kv in KV_DTYPES
    }
    heads = 2 * 8 * 2 * read_config(model).layers  # keys and values, tokens, KV heads
    sizes = {kv: info.kv_bytes_per_page // heads for kv, info in found.items()}
    assert sizes == {"auto": 16 * 4, "bf16": 16 * 2, "fp8": 16 + 4, "int8": 16 + 4}
    assert len({info.revision for info in found.values()}) == len(KV_DTYPES), "keys of pages would be the same"
    half = {
        kv: read_model_info(model, spec_for(model, 1, 1, dtype="bfloat16", engine=EngineSpec(kv_dtype=kv))).revision
        for kv in ("auto", "bf16")
    }
    assert half["auto"] == half["bf16"], "the same pages by two names"


def test_what_is_allocated_is_what_was_counted(
    group_of: Callable[[int, int], RankGroup], checkpoint: Callable[[str], Path]
) -> None:
    group = group_of(1, 1)
    for kv_dtype in KV_DTYPES:
        info = group.load(checkpoint("gqa-tied"), 10, engine=EngineSpec(page_size=8, kv_dtype=kv_dtype))[0]
        assert group.alone is not None and group.alone.runner is not None
        caches = [tensor for layer in group.alone.runner.caches for tensor in layer.tensors()]
        assert sum(tensor.nbytes for tensor in caches) == 10 * info.kv_bytes_per_page


def test_other_types_are_refused_by_name() -> None:
    spec = spec_for(Path("m"), 1, 1, engine=EngineSpec(kv_dtype="fp4"))
    with pytest.raises(ConfigError, match="kv_dtype must be one of auto, bf16, fp8, int8, got 'fp4'"):
        spec.check()
