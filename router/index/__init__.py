"""Which replica holds which pages: exact, from the replicas' own events, and a guess for prompts just sent."""

from .prefix import PrefixIndex

__all__ = ["PrefixIndex"]
