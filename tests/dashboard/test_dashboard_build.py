"""The build: done when needed, not done again, and with nothing in it that ties it to one machine or network."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from headway.controller.dashboard import STATIC_DIR
from headway.controller.dashboard.build import (
    WEB_DIR,
    BuildError,
    digest,
    ensure_built,
    find_npm,
    install_node,
    is_current,
    is_new_enough,
)


def test_builds_once_and_again_only_after_a_change(web_copy: Path, tmp_path: Path) -> None:
    static = tmp_path / "static"
    assert ensure_built(web_copy, static)
    assert is_current(web_copy, static)
    assert not ensure_built(web_copy, static)
    before = (static / "index.html").read_text()
    (web_copy / "index.html").write_text(
        (web_copy / "index.html").read_text().replace("<title>Headway", "<title>Changed")
    )
    assert not is_current(web_copy, static)
    assert ensure_built(web_copy, static)
    assert "<title>Changed" in (static / "index.html").read_text() != before


def test_every_file_of_the_sources_counts(web_copy: Path) -> None:
    before = digest(web_copy)
    (web_copy / "src" / "new.ts").write_text("export const added = 1;\n")
    assert digest(web_copy) != before


def test_what_npm_installs_does_not_count(web_copy: Path) -> None:
    before = digest(web_copy)
    (web_copy / "node_modules").mkdir()
    (web_copy / "node_modules" / "package.js").write_text("1")
    assert digest(web_copy) == before


def test_a_failed_build_tells_why_and_leaves_the_old_page(web_copy: Path, tmp_path: Path) -> None:
    static = tmp_path / "static"
    static.mkdir()
    (static / "index.html").write_text("old")
    (web_copy / "src" / "main.tsx").write_text("import './missing';\n")
    with pytest.raises(BuildError, match=r"missing"):
        ensure_built(web_copy, static)
    assert (static / "index.html").read_text() == "old"


def test_an_installed_package_has_nothing_to_build(tmp_path: Path) -> None:
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "index.html").write_text("built")
    assert not ensure_built(tmp_path / "web", tmp_path / "static")
    with pytest.raises(BuildError, match="without the dashboard"):
        ensure_built(tmp_path / "web", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("version", "works"), [("v18.20.4", False), ("v20.18.1", False), ("v20.19.0", True), ("v24.1.0", True)]
)
def test_an_old_node_is_passed_over(tmp_path: Path, version: str, works: bool) -> None:
    for name in ("node", "npm"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {version}\n")
        (tmp_path / name).chmod(0o755)
    assert is_new_enough(str(tmp_path / "node")) is works
    assert (find_npm(str(tmp_path)) is not None) is works


def test_node_without_npm_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("#!/bin/sh\necho v24.1.0\n")
    (tmp_path / "node").chmod(0o755)
    assert find_npm(str(tmp_path)) is None


def test_the_page_refers_to_its_files_by_relative_addresses(built_page: None) -> None:
    page = (STATIC_DIR / "index.html").read_text()
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert addresses and all(address.startswith("./") for address in addresses)
    assert all((STATIC_DIR / address).is_file() for address in addresses)


def test_the_page_carries_the_licences_of_what_it_bundles(built_page: None) -> None:
    licences = (STATIC_DIR / "licenses.md").read_text()
    assert all(f"## {name} - " in licences for name in ("react", "react-dom", "uplot"))


def test_versions_are_exact_and_the_lock_names_no_host() -> None:
    package = json.loads((WEB_DIR / "package.json").read_text())
    versions = {**package["dependencies"], **package["devDependencies"]}
    assert [name for name, version in versions.items() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
    lock = json.loads((WEB_DIR / "package-lock.json").read_text())
    assert [name for name, entry in lock["packages"].items() if "resolved" in entry] == []
    assert [name for name, entry in lock["packages"].items() if name and "integrity" not in entry] == []


@pytest.mark.parametrize("script", ["check", "test"])
def test_types_and_unit_tests_of_the_page(built_page: None, script: str) -> None:
    done = subprocess.run(
        [str(find_npm() or install_node()), "run", script], cwd=WEB_DIR, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
