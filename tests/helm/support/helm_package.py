"""Helm as a Python package: the wheel of helm-sdkpy, unpacked below the virtual environment.

Its metadata asks for Python 3.12 but it runs on 3.11, so pip is told the version and only downloads it.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import zipfile
from pathlib import Path

REQUIREMENT = "helm-sdkpy==0.1.32"


def site() -> Path:
    """The folder to import helm_sdkpy from; downloads the wheel the first time. Raises RuntimeError without it."""
    cache = Path(sys.prefix) / "cache" / REQUIREMENT.replace("==", "-")
    cache.mkdir(parents=True, exist_ok=True)
    # Several test processes may come at once.
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unpacked = cache / "site"
        if not (cache / "complete").exists():
            with zipfile.ZipFile(_download(cache)) as wheel:
                wheel.extractall(unpacked)
            (cache / "complete").touch()
        return unpacked


def _download(cache: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--python-version", "3.12"]
    command += ["--only-binary=:all:", "--dest", str(cache), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    wheels = sorted(cache.glob("*.whl"))
    if done.returncode or not wheels:
        raise RuntimeError(f"{REQUIREMENT} cannot be downloaded: {done.stderr.strip()}")
    return wheels[0]
