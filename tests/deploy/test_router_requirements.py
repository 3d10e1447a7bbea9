"""The router's image installs a short list instead of the package's dependencies: it must be enough, and honest."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTED = ROOT / "deploy" / "images" / "router-requirements.txt"


def requirements() -> list[str]:
    return [line for line in LISTED.read_text().splitlines() if line and not line.startswith("#")]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_each_is_a_dependency_of_the_package_with_the_same_bound() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [line for line in requirements() if line not in dependencies] == []


def test_whatever_the_router_imports_is_listed_late_imports_too() -> None:
    listed = {normal(re.split(r"[<>=\[]", line)[0]) for line in requirements()}
    found = {name for path in (ROOT / "router").rglob("*.py") for name in imported(path)}
    providers = importlib.metadata.packages_distributions()
    missing = {
        name: providers.get(name.split(".")[0])
        for name in found - {"__future__"}
        if name.split(".")[0] not in sys.stdlib_module_names
        and not listed & {normal(one) for one in providers.get(name.split(".")[0], [])}
    }
    assert missing == {}


def imported(path: Path) -> set[str]:
    """Names of absolute imports anywhere in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def test_the_router_runs_with_nothing_else_installed(tmp_path: Path) -> None:
    """A fresh environment with the list alone imports every module of the router and starts its command line."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    if uv := shutil.which("uv", path=sysconfig.get_path("scripts")) or shutil.which("uv"):
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    else:
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*install, "--requirement", str(LISTED)], check=True, timeout=110)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "headway").symlink_to(ROOT)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "source"), "PYTHONDONTWRITEBYTECODE": "1"}
    walk = (
        "import importlib, pkgutil, sys, headway.router\n"
        "for found in pkgutil.walk_packages(headway.router.__path__, 'headway.router.'):\n"
        "    importlib.import_module(found.name)\n"
        "assert not {'torch', 'ray'} & set(sys.modules)\n"
    )
    for command in ([str(python), "-c", walk], [str(python), "-m", "headway.router", "--help"]):
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
