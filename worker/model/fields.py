"""Typed fields of a checkpoint's JSON files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError


class Fields:
    """Reads typed fields of one JSON object; each refusal names the file, the field and what would be right.

    `used` has the names of all fields that were asked for.
    """

    def __init__(self, path: Path, values: dict[str, Any], prefix: str = "") -> None:
        self.path = path
        self.values = values
        self.prefix = prefix
        self.used: set[str] = set()

    def refuse(self, name: str, why: str) -> ConfigError:
        return ConfigError(f"{self.path}: {self.prefix}{name} {why}")

    def get(self, name: str, default: Any = None) -> Any:
        """The field as it stands, or `default` when it is absent or null."""
        self.used.add(name)
        value = self.values.get(name)
        return default if value is None else value

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number above zero."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refuse(name, f"must be a whole number above 0, got {value!r}")
        return value

    def count_or_none(self, name: str, default: int | None = None) -> int | None:
        """A whole number above zero, or null. `default` is for a field that is absent."""
        self.used.add(name)
        if name in self.values:
            return None if self.values[name] is None else self.count(name)
        return default

    def number(self, name: str, default: float | None = None) -> float:
        """A number above zero."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self.refuse(name, f"must be a number above 0, got {value!r}")
        return float(value)

    def number_or_none(self, name: str, default: float | None = None) -> float | None:
        """A number above zero, or null. `default` is for a field that is absent."""
        self.used.add(name)
        if name in self.values:
            return None if self.values[name] is None else self.number(name)
        return default

    def numbers(self, name: str, size: int) -> tuple[float, ...]:
        """A list of `size` numbers above zero."""
        value = self.get(name)
        right = isinstance(value, list) and len(value) == size
        if not right or any(isinstance(n, bool) or not isinstance(n, int | float) or not n > 0 for n in value):
            raise self.refuse(name, f"must be a list of {size} numbers above 0, got {value!r}")
        return tuple(float(item) for item in value)

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.refuse(name, f"must be true or false, got {value!r}")
        return value

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """One of some words."""
        value = self.get(name, default)
        if value not in choices:
            raise self.refuse(name, f"= {value!r} is not supported; these are: {', '.join(choices)}")
        return str(value)

    def token_ids(self, name: str) -> tuple[int, ...]:
        """One id, a list of ids, or nothing."""
        value = self.get(name)
        ids = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in ids):
            raise self.refuse(name, f"must be a token id or a list of them, got {value!r}")
        return tuple(ids)

    def inside(self, name: str) -> Fields:
        """The fields of an object within; of an empty one when it is absent."""
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise self.refuse(name, f"must be an object, got {value!r}")
        return Fields(self.path, value, f"{self.prefix}{name}.")

    def refuse_unused(self, neutral: dict[str, tuple[object, ...]]) -> None:
        """Raises ConfigError for a field of `neutral` that nobody asked for and that has a value not given there."""
        for name, values in neutral.items():
            if name not in self.used and self.values.get(name) not in values:
                raise self.refuse(name, f"= {self.values[name]!r} is not supported")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises ConfigError when it is missing or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; a checkpoint in Hugging Face layout has it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold a JSON object")
    return value
