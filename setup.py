"""Names the subpackages: setuptools cannot discover packages whose parent is the project's root itself. And the one
extension, which the package does without where there is no C compiler."""

from pathlib import Path

from setuptools import Extension, find_packages, setup

FOLDERS = ["proto", "core", "kernels", "worker", "router", "controller", "client", "cli", "demo"]
NATIVE = "kernels/native"

found = find_packages(include=[pattern for name in FOLDERS for pattern in (name, f"{name}.*")])
native = Extension(
    "headway.kernels.native._native",
    [str(path) for path in sorted(Path(NATIVE).glob("*.c"))],
    depends=[str(path) for pattern in ("*.h", "*.inc") for path in sorted(Path(NATIVE).glob(pattern))],
    extra_compile_args=["-O3", "-fno-math-errno", "-Wno-psabi"],
    py_limited_api=True,
    optional=True,
)
setup(packages=["headway", *(f"headway.{name}" for name in found)], ext_modules=[native])
