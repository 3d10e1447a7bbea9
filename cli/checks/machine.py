"""The machine: cores, memory, shared memory, disk, limits, proxies."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import urllib.request
from pathlib import Path

from .finding import Finding, fail, ok, warn

GIB = 2**30


def cores() -> Finding:
    """Cores that this process may use, by affinity and by cgroup quota, and torch's threads on them."""
    usable = len(os.sched_getaffinity(0))
    quota = _cpu_quota()
    detail = f"{usable} cores" + (f", limited to {quota:.1f} by the container" if quota and quota < usable else "")
    limit = min(usable, quota or usable)
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if limit < 2:
        return warn("cores", detail, "Router, controller and workers share them: give at least 2 to see real speed.")
    if threads.isdecimal() and int(threads) > limit:
        advice = f"Unset OMP_NUM_THREADS, or set it to at most {int(limit)}: more threads than cores are a catastrophe."
        return warn("cores", f"{detail}, and OMP_NUM_THREADS={threads}", advice)
    return ok("cores", detail + (f", OMP_NUM_THREADS={threads}" if threads else ""))


def _cpu_quota() -> float | None:
    """CPUs that cgroup v2 allows; None when it sets no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def memory() -> Finding:
    """Memory that is still free: Ray takes about 1 GB, and each rank a copy of torch and its share of the model."""
    import psutil

    found = psutil.virtual_memory()
    detail = f"{found.available / GIB:.1f} of {found.total / GIB:.1f} GiB free"
    if found.available < 2 * GIB:
        return warn("memory", detail, "End other programs: Ray and two replicas of the demo model take about 2 GiB.")
    return ok("memory", detail)


def shared_memory() -> Finding:
    """/dev/shm: Ray's object store and the step plane's rings lie there."""
    try:
        found = shutil.disk_usage("/dev/shm")
    except OSError as error:
        return fail("shared memory", f"/dev/shm: {error}", "Mount a tmpfs at /dev/shm.")
    detail = f"/dev/shm has {found.free / GIB:.2f} of {found.total / GIB:.2f} GiB free"
    advice = "Give it 1 GiB: docker run --shm-size=1g, in Kubernetes an emptyDir of medium Memory at /dev/shm."
    if not os.access("/dev/shm", os.W_OK):
        return fail("shared memory", "/dev/shm cannot be written", "Mount a writable tmpfs at /dev/shm.")
    if found.free < 16 * 2**20:
        return fail("shared memory", detail, advice)
    if found.free < GIB:
        return warn("shared memory", detail, advice)
    return ok("shared memory", detail)


def disk() -> Finding:
    """Room for Ray's session and logs; Ray refuses objects on a disk that is 95 % full."""
    path = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    found = shutil.disk_usage(path)
    detail = f"{path} has {found.free / GIB:.1f} GiB free"
    if found.free < GIB or found.free < 0.05 * found.total:
        return warn("disk", detail, "Free some room, or point RAY_TMPDIR to a larger disk.")
    return ok("disk", detail)


def open_files() -> Finding:
    """Open files: each stream and each Ray process takes some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 4096:
        return warn("open files", f"limit {soft} (hard limit {hard})", "Raise it: ulimit -n 65536")
    return ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"limit {soft}")


def proxies() -> Finding:
    """A proxy for plain HTTP breaks curl to 127.0.0.1. Headway's own clients go around it."""
    proxy = urllib.request.getproxies().get("http")
    if proxy and not urllib.request.proxy_bypass("127.0.0.1"):
        return warn("proxy", "http_proxy covers 127.0.0.1 too", "export no_proxy=127.0.0.1,localhost")
    return ok("proxy", "none between here and 127.0.0.1")
