"""Reads as much of a Dockerfile as the tests ask about."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One FROM and what follows it, instructions in order as (name, rest)."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.instructions if name == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]

    @property
    def command(self) -> list[str]:
        """CMD in its exec form; anything else is a ValueError."""
        return exec_form(self.last("CMD"))

    @property
    def health_command(self) -> list[str]:
        return exec_form(self.last("HEALTHCHECK").split("CMD", 1)[1])


def exec_form(text: str) -> list[str]:
    words = json.loads(text)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"not in exec form: {text}")
    return words


def stages(path: Path) -> list[Stage]:
    found: list[Stage] = []
    for line in _joined(path.read_text()):
        name, rest = line.split(maxsplit=1)
        if name == "FROM":
            base, *alias = rest.split()
            found.append(Stage(base, alias[1] if alias else ""))
        else:
            found[-1].instructions.append((name, rest))
    return found


def copied(stage: Stage) -> list[str]:
    """Sources of each COPY from the build context."""
    sources: list[str] = []
    for rest in stage.all("COPY"):
        words = shlex.split(rest)
        if not any(word.startswith("--from=") for word in words):
            sources.extend(words[:-1])
    return sources


def _joined(text: str) -> list[str]:
    """Lines without comments, continued ones made one."""
    kept = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return "\n".join(kept).replace("\\\n", " ").splitlines()
