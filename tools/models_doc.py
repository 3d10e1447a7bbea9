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

HEAD = """# Models

<!-- `make models-doc` writes this page from worker/model/architectures and tests/model/support. Edit those. -->

Headway reads checkpoints in Hugging Face layout: `config.json` of transformers 4 or 5, and safetensors, in one file or
in shards with an index. `architectures` in `config.json` decides which module runs it; code in a checkpoint is never
run, and pickles are never opened. Each rank reads its own slices only
([test_slices.py](../tests/model/test_slices.py)); files and tensors that are refused are in
[operations.md](operations.md#checkpoints).
Experts may lie one by one, or stacked as transformers 5 holds them.

| `architectures` | checkpoints | what it computes |
|---|---|---|
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
    tiny_llamas, tiny_models = (importlib.import_module(name) for name in ("tiny_llamas", "tiny_models"))
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
    ropes = "".join(f"| `{kind}` | {_text(reader)} |\n" for kind, reader in READERS.items())
    return HEAD + table + rest + cases + ROPE + ropes + TAIL.format(neutral=", ".join(f"`{name}`" for name in NEUTRAL))


def _architecture_row(name: str) -> str:
    model = ARCHITECTURES[name]
    path = Path(inspect.getfile(model)).name
    link = f"[{path}](../worker/model/architectures/{path})"
    return f"| `{name}` | {_text(model)} | {_text(inspect.getmodule(model))} {link} |\n"


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
