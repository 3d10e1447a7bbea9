"""The parts of the demo model's training that can be wrong without the loss showing it."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from headway.demo import DEMO_DIR
from headway.tools.demo_model.chats import conversations, documented_functions
from headway.tools.demo_model.corpus import Source, read_sources, split
from headway.tools.demo_model.evaluate import IGNORED, held_out_windows
from headway.tools.demo_model.export import rounded, write_model
from headway.tools.demo_model.model import Llama, Shape
from headway.tools.demo_model.muon import Muon, orthogonalise
from headway.tools.demo_model.special import CHAT_TEMPLATE, render
from headway.tools.demo_model.train import learning_rate
from headway.tools.demo_model.windows import BoundaryNoise, encode, epochs, for_rank

TINY = Shape(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
CODE = '''
def first(x):
    """Return the first."""
    return x[0]

class A:
    @property
    async def second(self):
        """Return the second.

        With care.
        """
        return self.b

def silent(): pass
'''


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DEMO_DIR / "tokenizer.json"))


def test_the_corpus_is_parted_by_path_alone() -> None:
    sources = read_sources()
    train, held_out = split(sources)
    assert len(train) + len(held_out) == len(sources) > 300
    assert not {s.path for s in train} & {s.path for s in held_out}
    assert not any("/test" in s.path or s.path.startswith("test/") or "site-packages" in s.path for s in sources)
    assert Source("ast.py", "").held_out
    assert not Source("argparse.py", "").held_out


def test_requests_are_answered_with_the_function_they_describe() -> None:
    functions = {node.name: reply for node, reply in documented_functions(CODE)}
    assert functions.keys() == {"first", "second"}
    assert functions["second"].startswith("@property\nasync def second(self):\n    ")
    ast.parse(functions["second"])


def test_conversations_repeat_for_a_seed() -> None:
    sources = [Source("a.py", CODE), Source("b.py", CODE)]
    assert conversations(sources, 1) == conversations(sources, 1) != conversations(sources, 2)


roles = st.sampled_from(["system", "user", "assistant"])


@given(st.lists(st.tuples(roles, st.text(max_size=30))), st.booleans())
def test_training_and_template_write_the_same(messages: list[tuple[str, str]], prompted: bool) -> None:
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(CHAT_TEMPLATE)
    text = template.render(messages=[{"role": r, "content": c} for r, c in messages], add_generation_prompt=prompted)
    assert text == render(messages) + ("<|assistant|>\n" if prompted else "")


def test_boundary_noise_changes_tokens_but_not_the_text(tokenizer: Tokenizer) -> None:
    stream = encode(tokenizer, [CODE] * 20)
    noisy = BoundaryNoise(tokenizer).apply(stream, np.random.default_rng(0))
    assert noisy.tolist() != stream.tolist()
    assert tokenizer.decode(noisy.tolist()) == tokenizer.decode(stream.tolist())


def test_an_epoch_has_all_of_the_code_once(tokenizer: Tokenizer) -> None:
    code = np.arange(1000, 2001, dtype=np.uint16)
    noise = BoundaryNoise(tokenizer)
    noise.without_space[:] = 0
    reader = epochs(code, np.zeros(3, dtype=np.uint16), noise, length=10, seed=3)
    windows = np.stack([next(reader) for _ in range(99)])
    assert windows.shape == (99, 11)
    assert (np.diff(windows.astype(int)) == 1).all()
    assert len(np.unique(windows[:, 1:])) == windows[:, 1:].size


def test_ranks_share_an_epoch_without_overlap() -> None:
    def numbered() -> list[np.ndarray[tuple[int], np.dtype[np.uint16]]]:
        return [np.array([i], dtype=np.uint16) for i in range(12)]

    batches = [next(for_rank(iter(numbered()), 4, rank, 3)).flatten().tolist() for rank in range(3)]
    assert sorted(number for batch in batches for number in batch) == list(range(12))


def test_every_held_out_token_is_predicted_once() -> None:
    stream = np.arange(1, 24, dtype=np.uint16)
    inputs, targets = held_out_windows(stream, 5)
    assert inputs.shape == targets.shape == (5, 5)
    assert targets[targets != IGNORED].tolist() == list(range(2, 24))
    assert (targets[targets != IGNORED] == inputs[targets != IGNORED] + 1).all()


def test_the_checkpoint_is_the_llama_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = Llama(TINY)
    for weight in model.parameters():
        weight.data.add_(torch.randn_like(weight) * 0.1)
    model = rounded(model)
    (tmp_path / "tokenizer.json").write_text("{}")
    write_model(model, tmp_path, tmp_path / "out")
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    tokens = torch.randint(0, TINY.vocab_size, (2, 40))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(st.sampled_from([(8, 24), (24, 8), (16, 16)]), st.integers(0, 1000))
def test_an_update_has_singular_values_near_one(shape: tuple[int, int], seed: int) -> None:
    stack = torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))
    values = torch.linalg.svdvals(orthogonalise(stack))
    assert values.max() < 1.5
    assert values.median() > 0.5


def test_the_optimizer_learns_and_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    model = Llama(TINY)
    optimizer = Muon(model)
    tokens = torch.randint(0, 50, (2, 17))
    losses = []
    for _ in range(30):
        model.zero_grad()
        logits = model(tokens[:, :-1]).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten())
        torch.autograd.backward(loss)
        optimizer.step(1.0)
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    again = Muon(model)
    again.load_state_dict(optimizer.state_dict())
    for mine, saved in zip(again.momentum.values(), optimizer.momentum.values(), strict=True):
        assert torch.equal(mine, saved)


def test_the_learning_rate_rises_and_then_falls_to_zero() -> None:
    assert learning_rate(0.0) == 0.0
    assert learning_rate(0.02) == pytest.approx(0.98)
    assert learning_rate(0.5) == 0.5
    assert learning_rate(1.0) == learning_rate(1.1) == 0.0
