"""Which replica holds which pages: exact, from the replicas' own events, and a guess for prompts just sent."""

from .holdings import Medium
from .prefix import PrefixIndex

__all__ = ["Medium", "PrefixIndex"]
