"""KV pages: who holds which, which hold a prefix that can be reused, and what routers are told of it."""

from .entry import Entry, Place, Prefix
from .events import KvChange, KvEvents, KvOp, Medium
from .pool import PagePool

__all__ = ["Entry", "KvChange", "KvEvents", "KvOp", "Medium", "PagePool", "Place", "Prefix"]
