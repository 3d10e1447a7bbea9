"""The text side of each model revision that was asked for, read once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from ..types import ServedModel
from .model import ModelText, threads

MOST_REVISIONS = 16


class TextLibrary:
    """ModelText by revision. Reading a large vocabulary takes a second: in a thread, and once for all who wait."""

    def __init__(self) -> None:
        self._texts: OrderedDict[tuple[str, str], asyncio.Future[ModelText]] = OrderedDict()

    async def get(self, model: ServedModel) -> ModelText:
        """The model's text side. Raises ConfigError when its files cannot be used; asked again, tries again."""
        # An adapter's text is its model's.
        key = (model.base or model.name, model.base_revision or model.revision)
        future = self._texts.get(key)
        if future is None:
            future = asyncio.get_running_loop().run_in_executor(threads, ModelText, model.text_assets)
            self._texts[key] = future
            while len(self._texts) > MOST_REVISIONS:
                self._texts.popitem(last=False)
        if future.done() and future.exception() is None:
            self._texts.move_to_end(key)
            return future.result()
        try:
            # Shielded: one caller that leaves must not cancel the reading for the others.
            return await asyncio.shield(future)
        except Exception:
            self._texts.pop(key, None)
            raise
