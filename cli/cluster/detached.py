"""`up --detach`: a supervisor in the background, and the command that waits for its word."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import msgspec

from .events import Event, Failed, Ready, decode, encode
from .files import Files
from .options import UpOptions
from .supervisor import Supervisor


def start(options: UpOptions, tell: Callable[[Event], None]) -> Event:
    """Starts the supervisor in a session of its own and passes on what it says; returns its last word.

    Ctrl-C or SIGTERM meanwhile stops it, and KeyboardInterrupt is raised when it has ended.
    """
    files = Files()
    files.make()
    log = files.logs / "supervisor.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "headway.cli.cluster", msgspec.json.encode(options).decode()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            start_new_session=True,
        )
    assert process.stdout is not None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for line in process.stdout:
            event = decode(line)
            if isinstance(event, Ready | Failed):
                if isinstance(event, Failed):
                    process.wait()
                return event
            tell(event)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    return Failed(f"the supervisor ended with exit code {process.wait()}", f"Log: {log}")


def main() -> int:
    """The supervisor's process: events go to stdout until nobody reads them."""
    options = msgspec.json.decode(sys.argv[1], type=UpOptions)

    def tell(event: Event) -> None:
        with suppress(BrokenPipeError):
            os.write(1, encode(event))
        if isinstance(event, Failed):
            sys.stderr.write(f"{event.message}\n")

    return Supervisor(options, tell).run()
