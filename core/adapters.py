"""Names and revisions of LoRA adapters: they are called as models are."""

from __future__ import annotations

import re

from .errors import InvalidRequest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


def adapted_revision(revision: str, adapter: str) -> str:
    """What names all that computes: the model's revision, and the adapter's if there is one."""
    return f"{revision}+{adapter}" if adapter else revision


def check_adapter(name: str, path: str) -> None:
    """Raises InvalidRequest for a name that cannot be, and for a path that each process would read in its own way."""
    if not _NAME.fullmatch(name):
        message = f"name must be 1 to 128 letters, digits, '.', '_', '/' and '-', a letter or digit first, got {name!r}"
        raise InvalidRequest(message, field="name")
    if not path.startswith("/") or "\0" in path:
        raise InvalidRequest(f"path must be an absolute path on the workers' machine, got {path!r}", field="path")
