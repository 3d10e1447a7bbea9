"""What a check says."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """`warn` works, but slowly or not everywhere; `fail` will not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """One check's verdict: what was found, and when it is not ok, what to do."""

    name: str
    verdict: Verdict
    detail: str
    next: str = ""


def ok(name: str, detail: str) -> Finding:
    return Finding(name, Verdict.OK, detail)


def warn(name: str, detail: str, next_step: str) -> Finding:
    return Finding(name, Verdict.WARN, detail, next_step)


def fail(name: str, detail: str, next_step: str) -> Finding:
    return Finding(name, Verdict.FAIL, detail, next_step)
