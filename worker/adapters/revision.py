"""What tells one version of an adapter from another."""

from __future__ import annotations

from pathlib import Path

import xxhash

from ...core.errors import ConfigError
from .config import CONFIG, check_directory

_CHUNK = 1 << 20


def adapter_revision(directory: Path) -> str:
    """Digest of the adapter's files, 32 hexadecimal digits. Raises ConfigError."""
    weights = check_directory(directory)
    digest = xxhash.xxh3_128()
    try:
        for path in (directory / CONFIG, weights):
            digest.update(path.stat().st_size.to_bytes(8, "little"))
            with path.open("rb") as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be read: {error}") from None
    return digest.hexdigest()
