"""The text files of model revisions, fetched once each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...proto.headway.v1 import engine_pb2

if TYPE_CHECKING:
    from ...proto.headway.v1.engine_pb2_grpc import EngineServiceAsyncStub

FETCH_TIMEOUT_S = 30.0


class TextAssets:
    """Files by model revision, shared by all sessions."""

    def __init__(self) -> None:
        self._files: dict[str, Mapping[str, bytes]] = {}

    async def get(self, revision: str, stub: EngineServiceAsyncStub) -> Mapping[str, bytes]:
        """The revision's files, from this replica when nobody gave them yet."""
        files = self._files.get(revision)
        if files is None:
            answer = await stub.GetTextAssets(engine_pb2.GetTextAssetsRequest(), timeout=FETCH_TIMEOUT_S)
            files = self._files[answer.revision] = dict(answer.files)
        return files
