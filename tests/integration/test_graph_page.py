"""`ratchetctl topo graph` in a browser: what a person sees, clicks and drags.

The page is made and served by this process. The bounds are on the processor time of the page's main
thread, which a busy machine changes little.
"""

from __future__ import annotations

import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ratchetctl.topo.graph import page, picture
from ratchetctl.topo.graph.seen import Seen
from ratchetctl.topo.model import Topology
from ratchetctl.topo.viewer.server import Server
from tests.lab import browser
from tests.lab.browser import Browser
from tests.unit.ratchetctl.topo.graph.networks import broken, hostile, network, random, seen

USABLE_S = 3.0
FRAME_S = 1 / 30
PULLED = "its cable is pulled out (ratchetctl link up)"
LINE = network([("r1", "r2"), ("r2", "r3"), ("r3", "r4")])


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    if browser.program() is None:
        message = f"no browser: one of {', '.join(browser.PROGRAMS)} is needed"
        if os.environ.get("CI") == "true" or os.environ.get("RATCHET_REQUIRE_ROOT") == "1":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    with Browser() as made:
        yield made


@pytest.fixture
def web(opened: Browser) -> Browser:
    opened.prefer("light")
    opened.resize(1440, 900)
    return opened


def show(web: Browser, folder: Path, topology: Topology, found: Seen | None = None) -> None:
    """Open the page of a topology as a file, and wait until it is drawn."""
    path = folder / "page.html"
    path.write_text(page.page(picture.draw(topology, found)), encoding="utf-8")
    web.open(path.as_uri())
    web.wait("globalThis.ratchet?.ready")


def text(web: Browser, element: str) -> str:
    found: str = web.js(f"document.getElementById('{element}').innerText")
    return "\n".join(line for line in found.split("\n") if line)


def click(web: Browser, title: str) -> None:
    where = web.js(f"ratchet.place({title!r})")
    web.click(where["x"], where["y"])


def troubles(web: Browser) -> list[dict[str, Any]]:
    """Return what the page's scripts threw, what its policy stopped, and what it logged."""
    return web.events("Runtime.exceptionThrown") + web.events("Log.entryAdded")


def asked(web: Browser) -> list[str]:
    """Return what the page has asked for, but for itself."""
    urls = [event["request"]["url"] for event in web.events("Network.requestWillBeSent")]
    return [url for url in urls if not url.startswith(("file:", "data:"))]


def pixel(web: Browser, x: float, y: float) -> list[int]:
    script = (
        "(() => {const c = document.getElementById('graph'), r = c.width / c.clientWidth;"
        f" return [...c.getContext('2d').getImageData({x} * r, {y} * r, 1, 1).data]}})()"
    )
    found: list[int] = web.js(script)
    return found


# What is seen


def test_page_opens_settled_from_a_file_alone(web: Browser, tmp_path: Path) -> None:
    show(web, tmp_path, LINE, seen(LINE))
    assert text(web, "name") == "net"
    assert text(web, "counts") == "4 nodes, 3 links: 3 up"
    legend = text(web, "legend").split("\n")
    assert {"node1", "node2", "vxlan, across machines"} <= set(legend)
    before = web.js("['r1', 'r4'].map(ratchet.place)")
    web.js("new Promise((done) => setTimeout(done, 300))")
    assert web.js("['r1', 'r4'].map(ratchet.place)") == before
    assert troubles(web) == []
    assert asked(web) == []


def test_node_has_the_colour_of_its_machine(web: Browser, tmp_path: Path) -> None:
    show(web, tmp_path, LINE, seen(LINE))
    for title, colour in (("r1", "#3f78d0"), ("r2", "#cf6a1e"), ("r3", "#3f78d0")):
        where = web.js(f"(({{x, y}}) => ({{x, y: y - 54}}))(ratchet.place('{title}'))")
        found = pixel(web, where["x"] - 10, where["y"] - 14)
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert all(abs(a - b) < 12 for a, b in zip(found, wanted, strict=False)), title


def test_click_shows_a_pods_links_and_why_one_is_down(web: Browser, tmp_path: Path) -> None:
    show(web, tmp_path, LINE, broken(LINE, "down", PULLED))
    assert text(web, "counts") == "4 nodes, 3 links: 2 up, 1 down"
    click(web, "r2")
    panel = text(web, "panel")
    assert panel.startswith("×\nr2\n")
    assert "node2" in panel
    assert "10.244.0.1" in panel
    assert "2 links" in panel
    assert PULLED in panel
    assert "received 1.0 kB in 10 packets" in panel
    # From there to the far pod, and away.
    web.js("document.querySelector('#panel .far').click()")
    assert text(web, "panel").startswith("×\nr1\n")
    web.press("Escape")
    assert web.js("document.getElementById('panel').hidden")


def test_clicked_node_comes_out_from_below_its_panel(web: Browser, tmp_path: Path) -> None:
    still = {"name": "prefers-reduced-motion", "value": "reduce"}
    web.call("Emulation.setEmulatedMedia", features=[still])
    show(web, tmp_path, LINE)
    start = web.js("ratchet.place('r1')")
    web.mouse("mousePressed", start["x"], start["y"], button="left", clickCount=1)
    web.mouse("mouseMoved", 1300, 130, button="left", buttons=1)
    web.mouse("mouseReleased", 1300, 130, button="left", clickCount=1)
    time.sleep(0.1)  # a click at the end of a drag is none
    click(web, "r1")
    web.wait("!document.getElementById('panel').hidden")
    panel = web.js("document.getElementById('panel').getBoundingClientRect().left")
    assert panel < 1300
    before = web.js("ratchet.place('r1')")
    assert before["x"] < panel - 10
    # One that is in the open stays where it is.
    click(web, "r1")
    assert web.js("ratchet.place('r1')") == before


def test_name_of_the_topology_is_whole_beside_long_counts(web: Browser, tmp_path: Path) -> None:
    web.resize(960, 700)
    show(web, tmp_path, LINE, broken(LINE, "fault", "the kernel refuses mtu 9000"))
    cut = "(element => element.scrollWidth > element.clientWidth)(document.getElementById('{}'))"
    assert not web.js(cut.format("name"))
    assert not web.js(cut.format("query"))
    assert text(web, "counts") == "4 nodes, 3 links: 2 up, 1 with a fault"


def test_hovering_tells_what_is_under_the_pointer(web: Browser, tmp_path: Path) -> None:
    show(web, tmp_path, LINE, broken(LINE, "down", PULLED))
    where = web.js("ratchet.place('r3')")
    web.move(where["x"], where["y"])
    assert text(web, "hint").split("\n") == ["r3", "linux, on node1", "2 links"]
    first, second = web.js("['r1', 'r2'].map(ratchet.place)")
    web.move((first["x"] + second["x"]) / 2, (first["y"] + second["y"]) / 2)
    assert text(web, "hint").split("\n") == ["r1 eth1 – r2 eth1", "vxlan 11, down", PULLED]
    web.move(5, 400)
    assert web.js("document.getElementById('hint').hidden")


def test_search_finds_names_addresses_and_machines(web: Browser, tmp_path: Path) -> None:
    topology = random(30, 10)
    show(web, tmp_path, topology, seen(topology, 3))
    web.press("/")
    web.type("10.244.0.29")
    assert web.js("document.querySelector('#results button').innerText").startswith("r30")
    web.press("Escape")
    web.press("/")
    web.type("node2")
    assert web.js("document.querySelectorAll('#results button').length") == 10
    web.press("Escape")
    web.press("/")
    web.type("R7")
    web.press("Enter")
    assert text(web, "panel").startswith("×\nr7\n")
    # The drawing goes there.
    web.wait("Math.abs(ratchet.place('r7').x - 720) < 2 && ratchet.view().k >= 1")
    web.press("Escape")
    web.press("/")
    web.type("nobody")
    assert "Nothing has this name" in text(web, "results")


def test_legend_shows_one_machine_or_kind_alone(web: Browser, tmp_path: Path) -> None:
    show(web, tmp_path, LINE, seen(LINE))
    where = web.js("(({x, y}) => ({x: x - 10, y: y - 54 - 14}))(ratchet.place('r1'))")
    before = pixel(web, where["x"], where["y"])
    web.js(
        "[...document.querySelectorAll('#legend button')]"
        ".find((one) => one.title === 'node2').click()"
    )
    web.js("new Promise(requestAnimationFrame)")
    assert pixel(web, where["x"], where["y"]) != before
    pressed = "document.querySelectorAll('#legend [aria-pressed=true]').length"
    assert web.js(pressed) == 1
    web.press("Escape")
    web.js("new Promise(requestAnimationFrame)")
    assert web.js(pressed) == 0
    assert pixel(web, where["x"], where["y"]) == before


def test_page_is_dark_or_light_as_is_preferred_or_chosen(web: Browser, tmp_path: Path) -> None:
    web.prefer("dark")
    show(web, tmp_path, LINE)
    dark = pixel(web, 4, 4)
    assert max(dark[:3]) < 60
    web.prefer("light")
    web.wait("document.documentElement.dataset.theme === 'light'")
    web.js("new Promise(requestAnimationFrame)")
    assert min(pixel(web, 4, 4)[:3]) > 230
    web.js("document.getElementById('theme').click()")
    web.js("new Promise(requestAnimationFrame)")
    assert pixel(web, 4, 4) == dark
    web.js("localStorage.clear()")


def test_wheel_and_buttons_zoom_and_dragging_moves(web: Browser, tmp_path: Path) -> None:
    show(web, tmp_path, LINE)
    before = web.js("ratchet.view().k")
    web.wheel(720, 300, -240)
    assert web.wait(f"ratchet.view().k > {before * 1.2} && ratchet.view().k")
    web.js("document.getElementById('fit').click()")
    web.wait(f"Math.abs(ratchet.view().k - {before}) < 1e-9")
    r1, r2 = web.js("['r1', 'r2'].map(ratchet.place)")
    drag(web, r1, 40, 60)
    moved, other = web.js("['r1', 'r2'].map(ratchet.place)")
    assert (round(moved["x"] - r1["x"]), round(moved["y"] - r1["y"])) == (40, 60)
    assert other == r2
    drag(web, {"x": 900, "y": 120}, 30, 20)
    assert [round(web.js("ratchet.place('r2')")[at] - r2[at]) for at in "xy"] == [30, 20]


def drag(web: Browser, start: dict[str, float], dx: float, dy: float) -> None:
    x, y = start["x"], start["y"]
    web.move(x, y)
    web.mouse("mousePressed", x, y, button="left", clickCount=1)
    for part in (0.3, 1.0):
        web.mouse("mouseMoved", x + dx * part, y + dy * part, button="left", buttons=1)
    web.mouse("mouseReleased", x + dx, y + dy, button="left", clickCount=1)


def test_hostile_names_are_shown_and_do_nothing(web: Browser, tmp_path: Path) -> None:
    topology = hostile()
    show(web, tmp_path, topology, seen(topology))
    web.js("globalThis.alert = () => { globalThis.struck = true; }")
    assert text(web, "name") == topology.name
    web.press("/")
    for query in ("script", "img", "drop", "&amp;"):
        web.js("document.getElementById('query').value = ''")
        web.type(query)
        assert web.js("document.querySelectorAll('#results button').length") >= 1
        web.press("Enter")
        panel = text(web, "panel")
        assert query in panel
        assert "onerror" in panel or "script" in panel  # the names of its interfaces
    assert web.js("globalThis.struck === undefined")
    assert web.js("document.querySelectorAll('img, iframe, object').length") == 0
    assert web.js("document.scripts.length") == 3
    assert troubles(web) == []
    assert asked(web) == []


def test_policy_stops_what_should_not_run(web: Browser, tmp_path: Path) -> None:
    """Were a name to get into the page as markup, it still would not run, nor ask anybody."""
    show(web, tmp_path, LINE)
    image = "<img src=x onerror=globalThis.struck=1>"
    web.js(f"document.body.insertAdjacentHTML('beforeend', '{image}')")
    web.js(
        "(() => {const s = document.createElement('script'); s.text = 'globalThis.struck = 2';"
        " document.body.append(s)})()"
    )
    assert web.js("fetch('http://127.0.0.1:9/').then(() => 'asked', () => 'refused')") == "refused"
    assert web.js("globalThis.struck === undefined")
    assert asked(web) == []


# A thousand nodes


def test_thousand_nodes_are_usable_at_once_and_move_smoothly(web: Browser, tmp_path: Path) -> None:
    topology = random(1000, 500)
    found = seen(topology, 8)
    path = tmp_path / "page.html"
    path.write_text(page.page(picture.draw(topology, found)), encoding="utf-8")
    web.call("Performance.enable", timeDomain="threadTicks")
    try:
        web.open(path.as_uri())
        web.wait("globalThis.ratchet?.ready")
        assert busy(web) < USABLE_S
        assert text(web, "counts") == "1,000 nodes, 1,499 links: 1,499 up"
        for start in ({"x": 500.0, "y": 100.0}, web.js("ratchet.place('r500')")):
            frames, seconds = dragging(web, start)
            assert frames >= 20
            assert seconds / frames < FRAME_S
    finally:
        web.call("Performance.disable")


def busy(web: Browser) -> float:
    """Return the seconds of processor time that the page's main thread has had."""
    metrics = web.call("Performance.getMetrics")["metrics"]
    (found,) = [one["value"] for one in metrics if one["name"] == "TaskDuration"]
    return float(found)


def dragging(web: Browser, start: dict[str, float]) -> tuple[int, float]:
    """Return how many frames were drawn during a drag, and the main thread's time for them."""
    web.js(
        "globalThis.frames = 0;"
        " (function tick() {globalThis.frames++; requestAnimationFrame(tick)})()"
    )
    x, y = start["x"], start["y"]
    web.move(x, y)
    web.mouse("mousePressed", x, y, button="left", clickCount=1)
    frames, before = web.js("globalThis.frames"), busy(web)
    for step in range(1, 41):
        web.mouse("mouseMoved", x + 5 * step, y + 3 * step, button="left", buttons=1)
    seconds, frames = busy(web) - before, web.js("globalThis.frames") - frames
    web.mouse("mouseReleased", x + 200, y + 120, button="left", clickCount=1)
    return frames, seconds


# Served


@pytest.fixture
def now() -> dict[str, Seen]:
    return {"seen": seen(LINE)}


@pytest.fixture
def server(now: dict[str, Seen]) -> Iterator[Server]:
    with Server(0, picture.draw(LINE), lambda: now["seen"]) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.05,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_served_page_follows_what_happens(
    web: Browser, server: Server, now: dict[str, Seen]
) -> None:
    web.open(server.url)
    web.wait("globalThis.ratchet?.ready")
    assert text(web, "live") == "live"
    click(web, "r1")
    assert "received 1.0 kB in 10 packets" in text(web, "panel")
    worse = broken(LINE, "down", PULLED)
    key = ("r1", "eth1")
    end = replace(worse.ends[key], received_bytes=900_000)
    now["seen"] = replace(worse, ends={**worse.ends, key: end})
    web.wait("document.getElementById('counts').innerText === '4 nodes, 3 links: 2 up, 1 down'")
    panel = text(web, "panel")
    assert PULLED in panel
    assert "received 900.0 kB in 10 packets (" in panel
    assert "kB/s)" in panel
    # A pod that moves to another machine has another colour, and its links are made anew.
    moved = {**now["seen"].pods, "r1": replace(now["seen"].pods["r1"], machine="node3")}
    now["seen"] = replace(now["seen"], pods=moved)
    web.wait("document.getElementById('legend').innerText.includes('node3')")
    now["seen"] = Seen(trouble="no simulation 'x' is running")
    web.wait("document.getElementById('live').innerText.startsWith('no simulation')")
    assert text(web, "counts").endswith("3 not known")
    assert troubles(web) == []
    urls = {event["request"]["url"] for event in web.events("Network.requestWillBeSent")}
    assert {url for url in urls if not url.startswith("data:")} == {
        server.url,
        f"{server.url}state.json",
    }


def test_page_says_that_its_server_has_gone_and_is_back(web: Browser, server: Server) -> None:
    web.open(server.url)
    web.wait("globalThis.ratchet?.ready")
    away(web, True)
    try:
        web.wait("document.getElementById('live').innerText.startsWith('no answer since')")
    finally:
        away(web, False)
    web.wait("document.getElementById('live').innerText === 'live'")


def away(web: Browser, is_away: bool) -> None:
    web.call(
        "Network.emulateNetworkConditions",
        offline=is_away,
        latency=0,
        downloadThroughput=-1,
        uploadThroughput=-1,
    )


def ask(server: Server, path: str = "/", host: str | None = None, method: str = "GET") -> int:
    request = urllib.request.Request(server.url.rstrip("/") + path, method=method)
    if host is not None:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_server_answers_only_who_asks_this_machine_by_name(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server) == 200
    assert ask(server, method="HEAD") == 200
    for host in ("localhost", "localhost:9999", "127.0.0.1:1", "[::1]:80"):
        assert ask(server, host=host) == 200, host
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil"):
        assert ask(server, host=host) == 403, host
    assert ask(server, "/../../etc/passwd") == 404
    assert ask(server, "/state.json?x=1") == 404
    assert ask(server, method="POST") == 501


def test_served_page_may_not_be_framed_kept_or_read_by_others(server: Server) -> None:
    with urllib.request.urlopen(server.url, timeout=10) as answer:
        headers = answer.headers
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers
