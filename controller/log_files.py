"""Where the output of processes that Ray starts goes."""

from __future__ import annotations

import os
from pathlib import Path

LOG_DIR = "HEADWAY_LOG_DIR"


def to_log_file(name: str) -> None:
    """Appends this process's stdout and stderr to NAME.log in $HEADWAY_LOG_DIR: Ray's own files go with Ray."""
    folder = os.environ.get(LOG_DIR)
    if not folder:
        return
    with (Path(folder) / f"{name}.log").open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
