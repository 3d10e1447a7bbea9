"""Names the subpackages: setuptools cannot discover packages whose parent is the project's root itself."""

from setuptools import find_packages, setup

FOLDERS = ["proto", "core", "kernels", "worker", "router", "controller", "client", "cli", "demo"]

found = find_packages(include=[pattern for name in FOLDERS for pattern in (name, f"{name}.*")])
setup(packages=["headway", *(f"headway.{name}" for name in found)])
