"""Tokenizers of the two families: byte-level (the demo model's own) and byte-fallback (as Llama 2 has it)."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from headway.demo import DEMO_DIR

ASSET_NAMES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@pytest.fixture(scope="session")
def demo_assets() -> dict[str, bytes]:
    """The demo model's text files."""
    return {name: (DEMO_DIR / name).read_bytes() for name in ASSET_NAMES if (DEMO_DIR / name).exists()}


@pytest.fixture(scope="session")
def demo_tokenizer(demo_assets: dict[str, bytes]) -> Tokenizer:
    return Tokenizer.from_buffer(demo_assets["tokenizer.json"])


@pytest.fixture(scope="session")
def fallback_tokenizer() -> Tokenizer:
    """Bytes as `<0xE4>`, a space as `▁`, and a decoder that strips the first one."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁", "▁the", "▁cat", "s", "e", "é", "▁naïve", "."]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={word: index for index, word in enumerate(words)}, merges=[], byte_fallback=True, unk_token="<unk>"
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    return tokenizer
