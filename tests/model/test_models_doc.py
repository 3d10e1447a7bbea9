"""docs/models.md says what the table and the tests say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_is_current() -> None:
    spec = importlib.util.spec_from_file_location("models_doc", ROOT / "tools" / "models_doc.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(), "make models-doc"
