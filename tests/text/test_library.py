"""The text side of a model: encoding off the loop, one reading for all who wait, files that cannot be used."""

from __future__ import annotations

import asyncio
import json

import pytest
from tokenizers import Tokenizer

from headway.core.errors import ConfigError
from headway.core.sampling import SamplingParams
from headway.router.text.library import TextLibrary
from headway.router.text.model import INLINE_CHARACTERS, ModelText
from headway.router.types import ServedModel


def served(assets: dict[str, bytes], revision: str = "r1") -> ServedModel:
    return ServedModel(
        name="demo", revision=revision, page_size=16, max_context_tokens=128, vocab_size=4096, eos_token_ids=(0,),
        default_sampling=SamplingParams(), text_assets=assets, ready_replicas=1,
    )  # fmt: skip


async def test_all_who_wait_get_the_same_reading(demo_assets: dict[str, bytes]) -> None:
    library = TextLibrary()
    first, *others = await asyncio.gather(*(library.get(served(demo_assets)) for _ in range(5)))
    assert all(other is first for other in others)
    assert await library.get(served(demo_assets, "r2")) is not first


async def test_one_who_leaves_does_not_cancel_the_reading(demo_assets: dict[str, bytes]) -> None:
    library = TextLibrary()
    leaver = asyncio.ensure_future(library.get(served(demo_assets)))
    stayer = asyncio.ensure_future(library.get(served(demo_assets)))
    await asyncio.sleep(0)
    leaver.cancel()
    assert isinstance(await stayer, ModelText)


async def test_unusable_files_are_told_and_read_again(demo_assets: dict[str, bytes]) -> None:
    library = TextLibrary()
    for broken in ({}, {"tokenizer.json": b"{}"}, {**demo_assets, "tokenizer_config.json": b"{"}):
        with pytest.raises(ConfigError):
            await library.get(served(broken))
    assert await library.get(served(demo_assets)) is not None


async def test_the_loop_runs_on_while_a_long_text_is_encoded(
    demo_assets: dict[str, bytes], demo_tokenizer: Tokenizer
) -> None:
    text = "value = other + 1\n" * 20_000
    assert len(text) > INLINE_CHARACTERS
    encoding = asyncio.ensure_future(ModelText(demo_assets).encode(text, add_special_tokens=False))
    turns = 0
    while not encoding.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert await encoding == demo_tokenizer.encode(text).ids
    assert turns > 5  # one turn a millisecond if nothing else ran; none when the interpreter lock is held


async def test_a_truncation_left_in_the_file_does_not_cut_prompts(demo_assets: dict[str, bytes]) -> None:
    rules = json.loads(demo_assets["tokenizer.json"])
    rules["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    text = ModelText({"tokenizer.json": json.dumps(rules).encode()})
    assert len(await text.encode("one two three four five six seven", add_special_tokens=False)) > 4


async def test_the_cheap_bound_never_exceeds_the_count(demo_assets: dict[str, bytes]) -> None:
    text = ModelText(demo_assets)
    for prompt in (" " * 4000, "def " * 1000, "字" * 1000, "a" * 4000):
        least = text.least_tokens(prompt)
        assert 0 < least <= len(await text.encode(prompt, add_special_tokens=False))
