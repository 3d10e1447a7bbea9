"""The replicas as this router sees them: who there is, an open session to each, and what they serve."""

from .catalogue import FleetCatalogue
from .fleet import Fleet
from .intake import OutputSink
from .replica import Replica
from .session import Session
from .watch import watch_cluster

__all__ = ["Fleet", "FleetCatalogue", "OutputSink", "Replica", "Session", "watch_cluster"]
