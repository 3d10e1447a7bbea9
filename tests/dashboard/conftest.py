"""A real Chromium before the built page. Where there is none the tests fail with what to install, never skip."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, async_playwright, expect

from headway.controller.dashboard.build import WEB_DIR, ensure_built
from headway.tests.dashboard.opened import CHROMIUM_FLAGS, Open, Opened
from headway.tests.dashboard.stream_server import StreamServer, serving

# Patience costs nothing where all is well, and a busy machine is no failure.
expect.set_options(timeout=20_000)


@pytest.fixture(scope="session")
def built_page() -> None:
    ensure_built()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for a module; each page gets a context of its own."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.fail("the dashboard is tested in a real browser: install it with `apt-get install chromium`")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield started
        await started.close()


@pytest_asyncio.fixture(loop_scope="module")
async def server(built_page: None) -> AsyncIterator[StreamServer]:
    async with serving(StreamServer()) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def open_page(browser: Browser, server: StreamServer) -> AsyncIterator[Open]:
    """Opens the page at a width, colour scheme and path of the server; with `own_clock` a test lets time pass."""

    contexts: list[BrowserContext] = []

    async def open_it(width: int = 1280, scheme: str = "light", path: str = "", own_clock: bool = False) -> Opened:
        context = await browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        opened = Opened(await context.new_page(), server.url.rstrip("/"))
        opened.listen()
        if own_clock:
            await opened.page.clock.install()
        contexts.append(context)
        await opened.page.goto(server.url + path)
        return opened

    yield open_it
    for context in contexts:
        await context.close()


@pytest.fixture
def web_copy(tmp_path: Path) -> Path:
    """The page's sources without what npm installed."""
    return Path(shutil.copytree(WEB_DIR, tmp_path / "web", ignore=shutil.ignore_patterns("node_modules")))
