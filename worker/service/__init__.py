"""EngineService and the reports to the controller: the engine as others see it, on an event loop of its own."""

from .adapters import AdapterRegistry
from .hub import Hub
from .standing import Standing
from .thread import ServiceThread

__all__ = ["AdapterRegistry", "Hub", "ServiceThread", "Standing"]
