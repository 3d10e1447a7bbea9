"""Who computes what in the next step.

There is no prefill phase and no decode phase: every request has `computed` tokens catching up with its known tokens,
and each step spends one token budget on that, the most urgent first. Chunked prefill, prefix hits and preemption by
recomputation are all the same arithmetic.
"""

from .adapters import BASE
from .decodes import Advanced
from .limits import Limits
from .outcome import Outcome
from .request import Request
from .scheduler import Scheduler, Update

__all__ = ["BASE", "Advanced", "Limits", "Outcome", "Request", "Scheduler", "Update"]
