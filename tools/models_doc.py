"""Writes docs/models.md: the table of architectures, and what the tests compare of each with transformers.

python -m tools.models_doc [--check]
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path
from typing import Any

from headway.worker.model.architectures import ARCHITECTURES
from headway.worker.model.config import NEUTRAL
from headway.worker.model.rope_fields import READERS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "models.md"
CASES = ROOT / "tests" / "model" / "support"

# Of a case's configuration, what says nothing of the numbers.
WRITERS_OWN = ("format", "ignore", "ignored_layers", "kv_cache_scheme", "quantization_status")
PARTS = ("weights", "input_activations")

HEAD = """# Models

<!-- `make models-doc` writes this page from worker/model/architectures and tests/model/support. Edit those. -->

Headway reads checkpoints in Hugging Face layout: `config.json` of transformers 4 or 5, and safetensors, in one file or
in shards with an index. `architectures` in `config.json` decides which module runs it; code in a checkpoint is never
run, and pickles are never opened. Each rank reads its own slices only
([test_slices.py](../tests/model/test_slices.py)); files and tensors that are refused are in
[operations.md](operations.md#checkpoints).
Experts may lie one by one, or stacked as transformers 5 holds them.

| `architectures` | checkpoints | what it computes | quantized |
|---|---|---|---|
"""

REST = """
## What is checked of each

Random tiny models of each architecture are written by transformers and compared with it, in float32 on CPU
([test_architectures.py](../tests/model/test_architectures.py)): the greedy tokens are equal, and the logits of every
generated token are within {tolerance:g} (absolute, and relative). Prompts of {prompts} tokens, in pages of 8, are in
one batch and generate {tokens} tokens each, with windows of {window} tokens: prompts and decoding go beyond the
window. One rank takes prompts in chunks of at most {chunks} tokens; two ranks, as tensor-parallel slices and as
pipeline stages, and four (tp 2 x pp 2) where said, in chunks of at most 13. Llama's first cases and the demo model are
compared in [test_equals_transformers.py](../tests/model/test_equals_transformers.py), within 2e-4. What a
configuration is taken for, and what is refused, is in
[test_configurations.py](../tests/model/test_configurations.py). Published checkpoints were not run: none is at hand
where the tests run.

| `architectures` | case | differs from 4 layers of width 64 by | ranks |
|---|---|---|---|
"""

QUANTIZED = """
## Quantized checkpoints

`quantization_config` in `config.json` says how products are stored; what lies plainly beside them (the head, layers
that were left out) is read plainly. Each case is a tiny model in the writer's layout, compared with transformers on
the weights that it stands for, on one rank and at tp 2 ([test_quantized.py](../tests/model/test_quantized.py)): 4-bit
weights within {tolerance:g}; where inputs are rounded, too, transformers' are rounded alike, and the median is within
that (a last bit becomes a whole step now and then).

| `quant_method` | case | what its configuration says |
|---|---|---|
"""

QUANTIZED_REST = """
4-bit weights stay 4-bit on a GPU and are multiplied with activations as they are; on CPU they are widened when they
are read, as fp8 is. fp8 with one scale for each 128 x 128 of a weight is read for experts, too; there, inputs are
rounded by groups of 128. Weights of int8 stay so everywhere; inputs are rounded to int8 or fp8, each row by its own
largest value, or by the stored `input_scale` where activations are static. At tp 2 and more, ranks that hold a part of
the inputs round that part by itself.

4-bit weights come in whole groups: `tp` has to leave each rank a multiple of the group, and of 128, of the attention's
outputs and of the MLP's columns; above tp 1 so it has with fp8 in blocks. What does not fit is refused with the
numbers that do, before anything starts. So are other methods and bits, and by their fields: `desc_act`, AWQ's layouts
other than gemm, blocks of other sizes than 128 x 128 (`weight_block_size`), weights or activations with zero points in
8 bits, sparsity, scales for the KV cache (`--kv-dtype` needs none), experts but in fp8 blocks, and `--load-format
dummy`.
"""

ROPE = """
## Rotary embedding

| `rope_type` | |
|---|---|
"""

TAIL = """
YaRN's context is `original_max_position_embeddings` times `factor` where that is more than `max_position_embeddings`.
`dynamic` has no effect within `max_position_embeddings`, beyond which nothing is served. LongRoPE goes by the
context that is served ([decision](decisions/0009-longrope-by-the-served-context.md)).

## What is refused

A field that would change what is computed, and that the architecture has no use for, is refused by its name before any
weight is read. These are known: {neutral}; and each entry of a rope section that its kind does not use.

## Splits

`tp` has to divide the query heads, the MLP's columns and the vocabulary, and `pp` the layers. KV heads are
split as far as they go: `tp` divides their number, or is a multiple of it, and then several ranks hold
the same KV head, with its pages. What does not fit is refused with the numbers that do.

## Windows

A layer with a window reads no key from before it. Pages from before the window stay with their request until it ends:
a page holds its tokens for all layers, and most architectures with windows have layers without one.

## Another architecture

A module in [worker/model/architectures](../worker/model/architectures) with a subclass of `Decoder`: `read_config`
takes what it honours from `config.json`, `layer` puts attention, MLP and norms together and reads their weights. Then
a line in the table beside it, a case in [tiny_models.py](../tests/model/support/tiny_models.py), and `make models-doc`.
"""


def page() -> str:
    """The whole page as it should be."""
    sys.path.insert(0, str(CASES))
    names = ("tiny_llamas", "tiny_models", "tiny_quantized")
    tiny_llamas, tiny_models, tiny_quantized = (importlib.import_module(name) for name in names)
    table = "".join(_architecture_row(name) for name in sorted(ARCHITECTURES))
    cases = "".join(
        _case_row(name, "LlamaForCausalLM", changes, four=True) for name, changes in tiny_llamas.SHAPES.items()
    )
    cases += "".join(
        _case_row(name, architecture, changes, four=name in tiny_models.FOUR_RANKS)
        for name, (architecture, _, changes) in tiny_models.MODELS.items()
    )
    rest = REST.format(
        tolerance=tiny_models.LOGITS_TOLERANCE,
        prompts=_listed(tiny_models.PROMPTS),
        chunks=_listed(tiny_models.CHUNKS),
        tokens=tiny_models.NEW_TOKENS,
        window=tiny_models.WINDOW,
    )
    quantized = "".join(_quantized_row(name, case) for name, case in tiny_quantized.CASES.items())
    quantized = QUANTIZED.format(tolerance=tiny_quantized.TOLERANCE) + quantized + QUANTIZED_REST
    ropes = "".join(f"| `{kind}` | {_text(reader)} |\n" for kind, reader in READERS.items())
    return (
        HEAD
        + table
        + rest
        + cases
        + quantized
        + ROPE
        + ropes
        + TAIL.format(neutral=", ".join(f"`{name}`" for name in NEUTRAL))
    )


def _architecture_row(name: str) -> str:
    model = ARCHITECTURES[name]
    path = Path(inspect.getfile(model)).name
    link = f"[{path}](../worker/model/architectures/{path})"
    module = inspect.getmodule(model)
    quantized = "fp8 in blocks" if hasattr(module, "read_experts") else "yes"
    return f"| `{name}` | {_text(model)} | {_text(module)} {link} | {quantized} |\n"


def _quantized_row(name: str, case: Any) -> str:
    config = case.config
    groups = config.get("config_groups", {}).values()
    told = {key: value for key, value in config.items() if key not in ("quant_method", "config_groups", *WRITERS_OWN)}
    told |= {part: group[part] for group in groups for part in PARTS if group[part]}
    fields = ", ".join(f"`{field}: {json.dumps(value)}`" for field, value in told.items())
    return f"| `{config['quant_method']}` | {name} | {fields} |\n"


def _case_row(name: str, architecture: str, changes: dict[str, Any], four: bool) -> str:
    fields = ", ".join(
        f"`{field}: {json.dumps(value)}`" for field, value in changes.items() if field != "attn_implementation"
    )
    return f"| `{architecture}` | {name} | {fields} | {'1, 2, 4' if four else '1, 2'} |\n"


def _text(documented: Any) -> str:
    """The docstring's first paragraph as one line."""
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())


def _listed(numbers: tuple[int, ...]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}"


def main() -> None:
    """Writes the page, or, with --check, says whether it is current."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE} is not current: make models-doc")


if __name__ == "__main__":
    main()
