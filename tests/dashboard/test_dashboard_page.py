"""The page in a real Chromium: what operators see of a cluster, live, and what their changes send."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Locator, Page, expect

from headway.proto.headway.v1 import admin_pb2
from headway.tests.dashboard import scenes
from headway.tests.dashboard.opened import Open, Opened
from headway.tests.dashboard.stream_server import StreamServer

pytestmark = pytest.mark.asyncio(loop_scope="module")


def card(page: Page, replica: str) -> Locator:
    return page.get_by_role("article", name=f"Replica {replica}", exact=True)


def change(**fields: object) -> admin_pb2.WatchClusterResponse:
    return admin_pb2.WatchClusterResponse(version=100, **fields)  # type: ignore[arg-type]


def check_quiet(opened: Opened) -> None:
    assert opened.errors == []
    assert opened.foreign == []


async def test_shows_the_cluster_of_the_snapshot(server: StreamServer, open_page: Open) -> None:
    server.show(scenes.busy())
    opened = await open_page()
    page = opened.page
    await expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
    await expect(page.get_by_text("2 models · 2 of 6 replicas ready · 24 ranks · 2 routers")).to_be_visible()
    states = {"demo-0": "Ready", "demo-2": "Loading", "demo-3": "Unhealthy", "code-0": "Draining", "code-1": "Pending"}
    for replica, state in states.items():
        await expect(card(page, replica).locator(".state")).to_have_text(state)
        await expect(card(page, replica).locator(".state svg")).to_be_visible()
    ready = card(page, "demo-0")
    for text in (
        "r0 48213",
        "r1 48214",
        "tp 2 × pp 1",
        "#8f3a2c1b",
        "0 restarts",
        "18.4k",
        "4.20 ms",
        "1,310 used",
        "1,904 cached",
    ):
        await expect(ready).to_contain_text(text)
    await expect(card(page, "demo-2").get_by_role("progressbar")).to_have_attribute("aria-valuenow", "62")
    await expect(card(page, "demo-3")).to_contain_text("rank 1 (pid 48302) was killed by signal 9")
    await expect(card(page, "demo-3")).to_contain_text("3 restarts")
    await expect(card(page, "code-0").get_by_label("Ranks of stage 1").get_by_role("listitem")).to_have_text(
        ["r4 51204", "r5 51205", "r6 51206", "r7 51207"]
    )
    check_quiet(opened)


async def test_shows_request_figures_over_all_routers(server: StreamServer, open_page: Open) -> None:
    server.show(scenes.busy())
    opened = await open_page()
    figures = opened.page.locator(".figure")
    expected = {
        "Finished": "83.4 req/s",
        "Output": "6,824 tok/s",
        "Time to first token": "p99 431 ms",
        "Time per output token": "4.30 ms p50",
        "In flight": "49 requests",
        "Prefix hits": "63% of prompt tokens",
        "Errors": "14 since start",
        "Migrations": "3 since start",
    }
    for label, text in expected.items():
        await expect(
            figures.filter(has=opened.page.get_by_role("term").filter(has_text=re.compile(f"^{label}")))
        ).to_contain_text(text)
    await expect(opened.page.locator(".figure canvas")).to_have_count(len(expected))
    await expect(opened.page.get_by_role("rowheader", name="router-2")).to_contain_text("127.0.0.1:50052")
    check_quiet(opened)


async def test_an_idle_router_has_no_percentiles_rather_than_zeros(server: StreamServer, open_page: Open) -> None:
    server.show(admin_pb2.WatchClusterResponse(version=1, snapshot=True, routers=[admin_pb2.Router(id="router-1")]))
    opened = await open_page()
    figures = opened.page.locator(".figure")
    await expect(figures.filter(has_text="Finished")).to_contain_text("0 req/s")
    await expect(figures.filter(has_text="Time to first token")).to_contain_text("– p50p99 –")
    await expect(figures.filter(has_text="Prefix hits")).to_contain_text("– of prompt tokens")
    check_quiet(opened)


async def test_charts_draw_the_last_seconds(server: StreamServer, open_page: Open) -> None:
    server.show(scenes.small())
    opened = await open_page()
    drawn = (
        "() => { const c = document.querySelector('.figure canvas'); return c && c.width > 0 && "
        "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((value) => value > 0); }"
    )
    # Reading a canvas makes the browser warn about the reading, so the console is not looked at here.
    await opened.page.wait_for_function(drawn)


async def test_follows_changes_live(server: StreamServer, open_page: Open) -> None:
    server.show(scenes.small())
    opened = await open_page()
    page = opened.page
    await expect(card(page, "demo-1").locator(".state")).to_have_text("Ready")
    dead = scenes.replica("demo-1", scenes.UNHEALTHY, reason="rank 0 died", restarts=1)
    server.controller.change(change(replicas=[dead], routers=[scenes.router(requests_per_second=12.0)]))
    await expect(card(page, "demo-1").locator(".state")).to_have_text("Unhealthy")
    await expect(card(page, "demo-1")).to_contain_text("rank 0 died")
    await expect(card(page, "demo-0").locator(".state")).to_have_text("Ready")
    await expect(page.locator(".figure").first).to_contain_text("12.0 req/s")
    await expect(page.get_by_role("log")).to_contain_text("demo-1 ready → unhealthy: rank 0 died")
    server.controller.change(change(replicas=[scenes.replica("demo-2", scenes.LOADING, loaded=0.25)]))
    await expect(card(page, "demo-2").get_by_role("progressbar")).to_have_attribute("aria-valuenow", "25")
    check_quiet(opened)


async def test_a_removed_replica_and_a_removed_router_go(server: StreamServer, open_page: Open) -> None:
    server.show(scenes.small())
    opened = await open_page()
    page = opened.page
    await expect(card(page, "demo-1")).to_be_visible()
    server.controller.change(change(removed_replica_ids=["demo-1"], removed_router_ids=["router-1"]))
    await expect(card(page, "demo-1")).to_have_count(0)
    await expect(card(page, "demo-0")).to_be_visible()
    await expect(page.get_by_role("log")).to_contain_text("demo-1 removed")
    await expect(page.get_by_text("No router has reported yet", exact=False).first).to_be_visible()
    check_quiet(opened)


async def test_an_empty_cluster_says_what_to_do(server: StreamServer, open_page: Open) -> None:
    opened = await open_page()
    await expect(opened.page.get_by_role("heading", name="No models yet")).to_be_visible()
    await expect(opened.page.get_by_text("headway up --model DIR")).to_be_visible()
    check_quiet(opened)


async def test_a_lost_stream_is_plain_and_a_fresh_snapshot_replaces_everything(
    server: StreamServer, open_page: Open
) -> None:
    server.show(scenes.small())
    opened = await open_page()
    page = opened.page
    await expect(card(page, "demo-0")).to_be_visible()
    check_quiet(opened)
    server.break_streams()
    await expect(page.get_by_role("alert")).to_contain_text("The event stream is lost")
    await expect(page.get_by_text("Data is", exact=False)).to_be_visible()
    await expect(page.get_by_role("status").filter(has_text="Stream lost")).to_be_visible()
    await expect(card(page, "demo-0")).to_be_visible()
    await expect(page.get_by_role("button", name="Drain demo-0")).to_be_disabled()
    server.show(
        admin_pb2.WatchClusterResponse(
            version=1, snapshot=True, models=[scenes.model()], replicas=[scenes.replica("demo-9")]
        )
    )
    server.is_down = False
    await page.get_by_role("button", name="Reconnect now").click()
    await expect(card(page, "demo-9")).to_be_visible()
    await expect(card(page, "demo-0")).to_have_count(0)
    await expect(page.get_by_role("alert")).to_have_count(0)
    await expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
    assert opened.foreign == []


async def test_comes_back_by_itself(server: StreamServer, open_page: Open) -> None:
    server.show(scenes.small())
    opened = await open_page()
    await expect(card(opened.page, "demo-0")).to_be_visible()
    server.end_streams()
    await expect(opened.page.get_by_role("alert")).to_be_visible()
    await expect(opened.page.get_by_role("alert")).to_have_count(0)
    assert server.connections == 2
    check_quiet(opened)


async def test_asks_again_when_the_stream_is_silent_without_alarm(server: StreamServer, open_page: Open) -> None:
    server.show(scenes.small())
    opened = await open_page(own_clock=True)
    page = opened.page
    await expect(card(page, "demo-0")).to_be_visible()
    server.show(admin_pb2.WatchClusterResponse(version=9, snapshot=True, replicas=[scenes.replica("demo-7")]))
    assert server.connections == 1
    await page.clock.run_for(31_000)
    await expect(card(page, "demo-7")).to_be_visible()
    await expect(page.get_by_role("alert")).to_have_count(0)
    assert server.connections == 2
    check_quiet(opened)


async def test_the_page_is_kept_to_its_origin_and_cached_by_content(server: StreamServer, open_page: Open) -> None:
    opened = await open_page()
    page = await opened.page.request.get(server.url)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-cache"
    (script,) = re.findall(r'src="\./(assets/[^"]+)"', await page.text())
    asset = await opened.page.request.get(server.url + script)
    assert "immutable" in asset.headers["cache-control"]
    missing = await opened.page.request.get(server.url + "assets/missing.js")
    assert missing.status == 404
    assert "immutable" not in missing.headers.get("cache-control", "")


async def test_a_controller_that_never_answered_is_not_an_empty_cluster(server: StreamServer, open_page: Open) -> None:
    server.is_down = True
    opened = await open_page()
    await expect(opened.page.get_by_role("alert")).to_contain_text("The controller has not answered yet")
    await expect(opened.page.get_by_role("heading", name="No models yet")).to_have_count(0)


async def test_drain_asks_first_and_posts_what_was_confirmed(server: StreamServer, open_page: Open) -> None:
    server.show(scenes.small())
    opened = await open_page()
    page = opened.page
    button = page.get_by_role("button", name="Drain demo-1")
    await button.click()
    dialog = page.get_by_role("dialog", name="Drain demo-1?")
    await expect(dialog).to_contain_text("12 running, 3 waiting")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(dialog).to_have_count(0)
    await expect(button).to_be_focused()
    assert server.controller.asked == []

    await page.keyboard.press("Enter")
    await dialog.get_by_label("Time to finish, in seconds").fill("45")
    await page.keyboard.press("Enter")
    await expect(dialog).to_have_count(0)
    assert server.controller.asked == [("drain", "demo-1", 45)]
    await expect(page.get_by_role("status").filter(has_text="the controller's own words")).to_be_visible()
    check_quiet(opened)


async def test_scale_asks_first_and_posts_what_was_confirmed(server: StreamServer, open_page: Open) -> None:
    server.show(scenes.small())
    opened = await open_page()
    page = opened.page
    await page.get_by_role("button", name="Scale headway-demo").click()
    dialog = page.get_by_role("dialog", name="Scale headway-demo")
    await dialog.get_by_label("Replicas wanted").fill("5")
    await expect(dialog).to_contain_text("Starts 3 replicas more, which need devices for 6 ranks.")
    await dialog.get_by_role("button", name="Scale model").click()
    await expect(dialog).to_have_count(0)
    assert server.controller.asked == [("scale", "headway-demo", 5)]
    check_quiet(opened)


async def test_a_refusal_is_shown_and_the_dialog_stays(server: StreamServer, open_page: Open) -> None:
    server.show(scenes.small())
    server.controller.refusal = "replicas must be at most 2: the cluster has 4 devices"
    opened = await open_page()
    page = opened.page
    await page.get_by_role("button", name="Scale headway-demo").click()
    await page.get_by_role("button", name="Scale model").click()
    await expect(page.get_by_role("dialog").get_by_role("alert")).to_have_text(server.controller.refusal)
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    assert opened.foreign == []


async def test_a_number_out_of_bounds_is_not_sent(server: StreamServer, open_page: Open) -> None:
    server.show(scenes.small())
    opened = await open_page()
    page = opened.page
    await page.get_by_role("button", name="Drain demo-0").click()
    for wrong in ("-1", "", "2.5"):
        await page.get_by_label("Time to finish, in seconds").fill(wrong)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_be_visible()
    assert server.controller.asked == []


async def test_lives_behind_a_path_prefix(server: StreamServer, open_page: Open) -> None:
    server.show(scenes.small())
    opened = await open_page(path="ops/headway/")
    await expect(card(opened.page, "demo-0")).to_be_visible()
    await opened.page.get_by_role("button", name="Drain demo-0").click()
    await opened.page.get_by_role("button", name="Drain replica").click()
    await expect(opened.page.get_by_role("dialog")).to_have_count(0)
    assert server.controller.asked == [("drain", "demo-0", 30)]
    check_quiet(opened)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
async def test_fits_the_width_in_both_schemes(server: StreamServer, open_page: Open, width: int, scheme: str) -> None:
    server.show(scenes.busy())
    opened = await open_page(width=width, scheme=scheme)
    page = opened.page
    await expect(card(page, "demo-0")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    # Text on the page's ground must be light on dark or dark on light.
    ground, ink = await page.evaluate(
        "() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; }"
    )
    assert (brightness(ground) < brightness(ink)) is (scheme == "dark")
    check_quiet(opened)


def brightness(colour: str) -> int:
    """Sum of the channels of `rgb(r, g, b)`."""
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
