"""The engine's loop: commands in, one step at a time, reports out. It knows neither gRPC nor processes."""

from .commands import Abort, Accept, Command, Compiled, Fail, Forget, Leave, Refuse, Stop, Submit
from .loop import Engine, Plane
from .reports import Decoded, Figures, Output, Refused, StepReport

__all__ = [
    "Abort",
    "Accept",
    "Command",
    "Compiled",
    "Decoded",
    "Engine",
    "Fail",
    "Figures",
    "Forget",
    "Leave",
    "Output",
    "Plane",
    "Refuse",
    "Refused",
    "StepReport",
    "Stop",
    "Submit",
]
