"""Python, the packages, torch and its devices, and the programs that only some features need."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from .finding import Finding, fail, ok, warn

if TYPE_CHECKING:
    from packaging.requirements import Requirement

LEAST_PYTHON = (3, 11)
INSTALL_AGAIN = "Install Headway again, where there is gcc: make install, or pip install -e ."


def python() -> Finding:
    """The interpreter's version."""
    version = platform.python_version()
    if sys.version_info < LEAST_PYTHON:
        wanted = ".".join(map(str, LEAST_PYTHON))
        return fail("python", version, f"Install Python {wanted} or newer and make the environment with it.")
    return ok("python", f"{version} at {sys.executable}")


def packages() -> Finding:
    """Every dependency that the installed package asks for, in a version that it accepts."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in metadata.requires("headway") or []]
    except metadata.PackageNotFoundError:
        return warn("packages", "headway runs from its sources, uninstalled", "Install it: pip install -e .")
    needed = [item for item in wanted if item.marker is None or item.marker.evaluate({"extra": ""})]
    problems = [problem for item in needed if (problem := _problem(item))]
    if problems:
        return fail("packages", "; ".join(problems), "Install them: pip install --upgrade headway")
    return ok("packages", f"headway {metadata.version('headway')} and its {len(needed)} dependencies")


def _problem(needed: Requirement) -> str:
    try:
        version = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        return f"{needed.name} is missing"
    accepted = needed.specifier.contains(version, prereleases=True)
    return "" if accepted else f"{needed.name} is {version} and must be {needed.specifier}"


def torch_devices() -> Finding:
    """torch's build, and the devices that it can use."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return fail("torch", f"cannot be imported: {error}", "Install it again: pip install --force-reinstall torch")
    build = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        names = ", ".join(f"{device.name} ({device.total_memory / 2**30:.0f} GiB)" for device in devices)
        return ok("torch", f"{build}, CUDA {torch.version.cuda}: {names}")
    if Path("/dev/nvidia0").exists():
        cause = "its build is for CPU" if torch.version.cuda is None else "the driver does not suit its CUDA"
        return warn("torch", f"{build} sees no GPU, though there is one: {cause}", "Install a CUDA build of torch.")
    return ok("torch", f"{build}, no GPU: worker groups run on CPU over gloo")


def cpu_operations() -> Finding:
    """Which way the operations go that are in C for CPU (docs/decisions/0014-operations-in-c-on-cpu.md)."""
    try:
        from ...kernels.native import BUILT, OF_OTHER_VERSION, instruction_set
        from ...kernels.native.speed import product_speeds
    except (ImportError, OSError) as error:
        return fail("cpu operations", f"cannot be imported: {error}", "See what is said of torch.")
    if OF_OTHER_VERSION:
        return warn("cpu operations", "the C extension is of another version: all go by torch", INSTALL_AGAIN)
    try:
        used, speeds = instruction_set(), product_speeds()
    except Exception as error:  # whatever is wrong with the extension
        return fail("cpu operations", f"the C extension does not run: {error}", INSTALL_AGAIN)
    if used and speeds:
        name = "bfloat16" if speeds.prefer_bfloat16 else "float32"
        return ok("cpu operations", f"in C, compiled for {used}; {speeds}: models of bfloat16 run in {name}")
    if BUILT:
        return warn(
            "cpu operations", "turned off: all go by torch", "Unset HEADWAY_NATIVE_KERNELS and TRITON_INTERPRET."
        )
    advice = "If replicas run on CPU, install gcc and then Headway again."
    return warn("cpu operations", "no extension was built for them: all go by torch, slower on CPU", advice)


def attention() -> Finding:
    """Whose attention a GPU runs, by what replicas measured when they started (kernels/attention_choice.py)."""
    from importlib.util import find_spec

    names = {"flashinfer": "FlashInfer", "flash_attn_interface": "FlashAttention 3", "flash_attn": "FlashAttention 2"}
    others = [label for name, label in names.items() if find_spec(name) is not None]
    if not others:
        return ok("attention", "Headway's own kernels; neither FlashInfer nor FlashAttention is installed")
    try:
        from ...kernels.attention_choice import known_verdicts, told
    except (ImportError, OSError) as error:
        return fail("attention", f"cannot be imported: {error}", "See what is said of torch.")
    found = [
        f"{kind} by {verdict.winner} ({told(verdict)}) on {key}"
        for key, kinds in known_verdicts().items()
        for kind, verdict in kinds.items()
    ]
    unmeasured = f"{', '.join(others)} installed; a replica's start on a GPU measures them"
    return ok("attention", "; ".join(found) or unmeasured)


def redis_server() -> Finding:
    """Optional: clusters keep their state in Redis, the embedded one in memory."""
    return _program("redis", ("redis-server",), "state of clusters", "apt-get install redis-server")


def browser() -> Finding:
    """Optional: only tests of the dashboard drive one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return _program("browser", names, "tests of the dashboard", "apt-get install chromium")


def _program(name: str, commands: tuple[str, ...], purpose: str, install: str) -> Finding:
    for command in commands:
        if path := shutil.which(command):
            return ok(name, path)
    return warn(name, f"no {commands[0]}; needed only for {purpose}", f"If you need it: {install}")
