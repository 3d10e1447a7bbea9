"""Incremental detokenizing: the pieces joined are the text decoded at once, and no piece ends inside a character."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from headway.router.text import model
from headway.router.text.detokenize import REPLACEMENT, ByteDetokenizer, TokenBytes, WindowDetokenizer
from headway.router.text.model import ModelText

shared = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
cuts = st.lists(st.integers(1, 5), min_size=1)


def id_of(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.token_to_id(token)
    assert token_id is not None
    return token_id


def in_pieces(detokenizer: ByteDetokenizer | WindowDetokenizer, ids: list[int], sizes: list[int]) -> list[str]:
    """What comes out when the ids go in a few at a time."""
    pieces = []
    at = turn = 0
    while at < len(ids):
        size = sizes[turn % len(sizes)]
        pieces.append(detokenizer.feed(ids[at : at + size]))
        at, turn = at + size, turn + 1
    return [*pieces, detokenizer.flush()]


@shared
@given(ids=st.lists(st.integers(0, 4100), max_size=200), skip=st.booleans(), sizes=cuts)
def test_any_ids_give_what_decoding_at_once_gives(
    demo_tokenizer: Tokenizer, ids: list[int], skip: bool, sizes: list[int]
) -> None:
    special = frozenset(range(5)) if skip else frozenset[int]()
    detokenizer = ByteDetokenizer(TokenBytes(demo_tokenizer, special))
    assert "".join(in_pieces(detokenizer, ids, sizes)) == demo_tokenizer.decode(ids, skip_special_tokens=skip)


@shared
@given(text=st.text(max_size=100), sizes=cuts)
def test_text_comes_back_without_a_broken_character(demo_tokenizer: Tokenizer, text: str, sizes: list[int]) -> None:
    ids = demo_tokenizer.encode(text, add_special_tokens=False).ids
    pieces = in_pieces(ByteDetokenizer(TokenBytes(demo_tokenizer, frozenset())), ids, sizes)
    assert "".join(pieces) == text
    assert all(text.find(piece) >= 0 for piece in pieces)


def test_a_character_waits_for_its_last_byte(demo_tokenizer: Tokenizer) -> None:
    ids = demo_tokenizer.encode("🦀", add_special_tokens=False).ids
    assert len(ids) > 1
    detokenizer = ByteDetokenizer(TokenBytes(demo_tokenizer, frozenset()))
    assert [detokenizer.feed([token_id]) for token_id in ids] == [""] * (len(ids) - 1) + ["🦀"]


def test_an_unfinished_character_is_told_at_the_end(demo_tokenizer: Tokenizer) -> None:
    ids = demo_tokenizer.encode("🦀", add_special_tokens=False).ids[:-1]
    detokenizer = ByteDetokenizer(TokenBytes(demo_tokenizer, frozenset()))
    assert detokenizer.feed(ids) == ""
    assert detokenizer.flush() == demo_tokenizer.decode(ids) == REPLACEMENT


def test_added_tokens_may_hold_what_the_byte_alphabet_does_not(demo_assets: dict[str, bytes]) -> None:
    tokenizer = Tokenizer.from_buffer(demo_assets["tokenizer.json"])
    tokenizer.add_tokens([AddedToken("two words", normalized=False), AddedToken("字", normalized=False)])
    ids = tokenizer.encode("a two words字b", add_special_tokens=False).ids
    pieces = in_pieces(ByteDetokenizer(TokenBytes(tokenizer, frozenset())), ids, [1])
    assert "".join(pieces) == tokenizer.decode(ids) == "a two words字b"


@shared
@given(text=st.text(alphabet="the cats é naïve.字🦀\n", max_size=40), sizes=cuts)
def test_byte_fallback_text_comes_back(fallback_tokenizer: Tokenizer, text: str, sizes: list[int]) -> None:
    ids = fallback_tokenizer.encode(text, add_special_tokens=False).ids
    pieces = in_pieces(WindowDetokenizer(fallback_tokenizer, frozenset()), ids, sizes)
    assert "".join(pieces) == fallback_tokenizer.decode(ids)
    assert not any(REPLACEMENT in piece for piece in pieces)


def test_the_window_does_not_grow_with_the_output(fallback_tokenizer: Tokenizer) -> None:
    ids = fallback_tokenizer.encode("the cats " * 50 + "字" * 50, add_special_tokens=False).ids
    special = id_of(fallback_tokenizer, "</s>")
    detokenizer = WindowDetokenizer(fallback_tokenizer, frozenset([special]))
    widest = 0
    for token_id in ids:
        detokenizer.feed([token_id, special, special])
        widest = max(widest, len(detokenizer._window))
    assert widest <= WindowDetokenizer.WIDEST


def test_the_first_word_keeps_its_space_after_a_prompt(fallback_tokenizer: Tokenizer) -> None:
    prompt = fallback_tokenizer.encode("the", add_special_tokens=False).ids
    detokenizer = WindowDetokenizer(fallback_tokenizer, frozenset(), prompt)
    assert detokenizer.feed([id_of(fallback_tokenizer, "▁cat")]) == " cat"


def test_a_model_gets_the_detokenizer_of_its_family(
    demo_assets: dict[str, bytes], fallback_tokenizer: Tokenizer
) -> None:
    demo = ModelText(demo_assets)
    other = ModelText({"tokenizer.json": fallback_tokenizer.to_str().encode()})
    assert isinstance(demo.detokenizer([1], skip_special_tokens=True), ByteDetokenizer)
    assert isinstance(other.detokenizer([1], skip_special_tokens=True), WindowDetokenizer)
    assert json.loads(demo_assets["tokenizer.json"])["decoder"]["type"] == "ByteLevel"


@settings(shared, max_examples=25)
@given(data=st.data(), piece=st.integers(1, 5))
def test_many_ids_are_decoded_in_turns_to_the_same_text(
    demo_assets: dict[str, bytes],
    demo_tokenizer: Tokenizer,
    fallback_tokenizer: Tokenizer,
    data: st.DataObject,
    piece: int,
) -> None:
    """Whatever the pieces cut through: characters of several tokens, broken ones, ids without a token."""
    characters = demo_tokenizer.encode("🦀é", add_special_tokens=False).ids
    likely = st.one_of(st.sampled_from(characters), st.integers(0, 4100))
    ids = data.draw(st.lists(likely, min_size=piece + 1, max_size=40))
    bytes_or_words = data.draw(st.lists(st.integers(0, 268), min_size=piece + 1, max_size=40))
    fallback = {"tokenizer.json": fallback_tokenizer.to_str().encode()}

    async def decode(assets: dict[str, bytes], ids: list[int]) -> tuple[str, int]:
        turns, ended = 0, False

        async def other() -> None:
            nonlocal turns
            while not ended:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        text = await ModelText(assets).decode(ids)
        ended = True
        await beside
        return text, turns

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "INLINE_TOKENS", piece)
        text, turns = asyncio.run(decode(demo_assets, ids))
        assert text == demo_tokenizer.decode(ids, skip_special_tokens=False)
        assert turns >= len(ids) // piece
        text, _ = asyncio.run(decode(fallback, bytes_or_words))
        assert text == fallback_tokenizer.decode(bytes_or_words, skip_special_tokens=False)
