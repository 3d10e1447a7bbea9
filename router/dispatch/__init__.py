"""Runs requests on replicas: placement, tokens back to the front, and going on elsewhere when a replica dies."""

from .dispatcher import FleetDispatcher
from .meter import DispatchMeter, SilentMeter

__all__ = ["DispatchMeter", "FleetDispatcher", "SilentMeter"]
