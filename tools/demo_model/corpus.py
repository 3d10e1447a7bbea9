"""The text that every machine has: the sources of Python's standard library, without tests and tables."""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

# Tests are left out because they repeat themselves; the others are generated tables or belong to somebody else.
SKIPPED_FOLDERS = frozenset({
    "test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__",
    "encodings", "pydoc_data", "config", "_bundled", "__phello__",
})  # fmt: skip
HELD_OUT_PERCENT = 3


@dataclass(frozen=True)
class Source:
    """One file: its path inside the library (with `/`) and its text."""

    path: str
    text: str

    @property
    def held_out(self) -> bool:
        """Whether this file is kept from training; decided by its path alone, so the same on every machine."""
        digest = hashlib.sha256(self.path.encode()).digest()
        return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT


def read_sources() -> list[Source]:
    """Every source file of the running interpreter's library, in the order of their paths."""
    root = Path(sysconfig.get_paths()["stdlib"])
    sources = []
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if SKIPPED_FOLDERS.intersection(inside.parts[:-1]) or inside.name.startswith("_sysconfigdata"):
            continue
        text = _decode(path.read_bytes())
        if text.strip():
            sources.append(Source(inside.as_posix(), text))
    return sources


def split(sources: list[Source]) -> tuple[list[Source], list[Source]]:
    """The files to train on and the files to measure on."""
    return [s for s in sources if not s.held_out], [s for s in sources if s.held_out]


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return ""  # a handful of files in other encodings: not worth a decoder
