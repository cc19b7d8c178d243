"""What Prometheus gets from a real child, and that pods do not suffer for it."""

from __future__ import annotations

import os
import re
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from ratchet import __version__
from tests.lab.agent import NODE_NAME, AgentBed
from tests.lab.api_server import Authority
from tests.lab.cluster import Cluster
from tests.lab.namespaces import random_port
from tests.lab.polling import wait_for
from tests.lab.runtime import PAIR, Config, Node, in1_in2, primary, request_config

pytestmark = pytest.mark.root

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LOOPBACK = "127.0.0.1"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SCRAPE_TIMEOUT_S = 10.0
NOT_OURS = "process_"  # the client library's own, of every process


class Scrape(dict[str, float]):
    """The samples of one scrape, as `name{label="value"}`; what is not there is 0."""

    def __init__(self, families: list[Metric]) -> None:
        super().__init__()
        self.families = families
        for family in families:
            for sample in family.samples:
                labels = ",".join(f'{key}="{value}"' for key, value in sample.labels.items())
                self[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value

    def __missing__(self, key: str) -> float:
        return 0.0

    def links(self) -> tuple[int, int, int]:
        states = ("up", "waiting", "error")
        up, waiting, error = (int(self[f'ratchet_links{{state="{one}"}}']) for one in states)
        return up, waiting, error

    def ends(self, operation: str) -> float:
        return self[f'ratchet_end_operation_seconds_count{{operation="{operation}"}}']


def fetch(node: Node, address: str, accept: str = "text/plain") -> str:
    request = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": accept})

    def get() -> str:
        with urllib.request.urlopen(request, timeout=SCRAPE_TIMEOUT_S) as answer:
            return str(answer.read().decode())

    return node.namespace.do(get)


def scrape(node: Node, address: str) -> Scrape:
    return Scrape(list(text_string_to_metric_families(fetch(node, address))))


def is_served(node: Node, address: str) -> bool:
    try:
        return bool(scrape(node, address))
    except (urllib.error.URLError, OSError):
        return False


def metrics_at(node: Node, address: str | None, **changes: object) -> Config:
    return node.config(metrics_address=address, **changes)


@pytest.fixture
def address() -> str:
    return f"{LOOPBACK}:{random_port()}"


def test_figures_follow_what_happens(cluster: Cluster, node: Node, far: Node, address: str) -> None:
    left, near, away = cluster.pod("a"), cluster.pod("b"), cluster.pod("c")
    started = time.time()
    labels = {**in1_in2("b"), **primary("in3", None, "c", "in4", None, 2)}
    config = metrics_at(node, address)
    node.add(left, labels, config=config).succeeded()
    wait_for("the endpoint", lambda: is_served(node, address))
    first = scrape(node, address)
    assert first.links() == (0, 2, 0)
    assert first['ratchet_pods{state="attached"}'] == 1
    assert first["ratchet_etcd_up"] == 1
    assert first[f'ratchet_build_info{{version="{__version__}"}}'] == 1
    assert started <= first["ratchet_last_reconciliation_timestamp_seconds"] <= time.time()

    node.add(near, PAIR, config=config).succeeded()
    far.add(away, PAIR).succeeded()
    second = wait_for(
        "all links to be up",
        lambda: scrape(node, address),
        until=lambda seen: seen.links() == (3, 0, 0),
    )
    assert second['ratchet_pods{state="attached"}'] == 2
    assert second.ends("make") == 3
    assert 0 < second['ratchet_end_operation_seconds_sum{operation="make"}'] < 10
    assert second['ratchet_request_seconds_count{operation="attached"}'] == 2
    assert second['ratchet_etcd_request_seconds_count{operation="set"}'] > 0
    assert second["ratchet_reconciliation_seconds_count"] > 1

    far.delete(away).succeeded()
    third = wait_for(
        "a link to wait again",
        lambda: scrape(node, address),
        until=lambda seen: seen.links() == (2, 1, 0),
    )
    left.netns.wait_no_carrier("in3")
    assert third.ends("remove") == 0

    cluster.etcd.stop()
    down = wait_for(
        "etcd to be missed",
        lambda: scrape(node, address),
        until=lambda seen: not seen["ratchet_etcd_up"] and seen["ratchet_retries_total"],
    )
    errors = {
        key: count for key, count in down.items() if key.startswith("ratchet_etcd_request_errors_t")
    }
    assert sum(errors.values()) > 0
    cluster.etcd.start()
    wait_for("etcd to be back", lambda: scrape(node, address)["ratchet_etcd_up"])

    for pod in (left, near):
        node.delete(pod).succeeded()
    # What is removed: the tunnel's end, and the cable inside the node once.
    last = wait_for(
        "nothing to be left",
        lambda: scrape(node, address),
        until=lambda seen: (
            seen.links() == (0, 0, 0)
            and not seen['ratchet_pods{state="attached"}']
            and seen.ends("remove") >= 2
        ),
    )
    assert last.ends("remove") == 2


def test_links_with_a_fault_are_counted(
    cluster: Cluster, node: Node, far: Node, address: str
) -> None:
    """A tunnel takes no MTU that its lower device cannot carry."""
    left, away = cluster.pod("a"), cluster.pod("b")
    config = metrics_at(node, address, mtu=9000)
    node.add(left, in1_in2("b"), config=config).succeeded()
    wait_for("the endpoint", lambda: is_served(node, address))
    first = scrape(node, address)
    assert "ratchet_link_faults" in first
    assert first["ratchet_link_faults"] == 0
    far.add(away, PAIR).succeeded()
    seen = wait_for(
        "the link to be up",
        lambda: scrape(node, address),
        until=lambda seen: seen.links() == (1, 0, 0),
    )
    assert seen["ratchet_link_faults"] == 1


def test_what_is_served_is_what_is_documented_and_as_prometheus_wants_it(
    cluster: Cluster, node: Node, address: str
) -> None:
    node.add(cluster.pod("a"), in1_in2("b"), config=metrics_at(node, address)).succeeded()
    node.add(cluster.pod("b"), PAIR, config=metrics_at(node, address)).succeeded()
    wait_for("the endpoint", lambda: is_served(node, address))
    found = [
        family
        for family in openmetrics_families(fetch(node, address, OPENMETRICS))  # type: ignore[no-untyped-call] # has none
        if not family.name.startswith(NOT_OURS)
    ]
    suffixes = {"counter": "_total", "info": "_info"}
    served = {
        family.name + suffixes.get(family.type, ""): (family.type, _labels(family))
        for family in found
    }
    agents = {name for name in documented() if name.startswith("ratchet_agent_")}
    assert served == {name: one for name, one in documented().items() if name not in agents}
    for family in found:
        assert family.documentation.endswith("."), family.name
        assert family.name.startswith("ratchet_")
        if family.type == "histogram":
            assert family.name.endswith("_seconds")


def test_an_agent_shows_how_it_is(
    cluster: Cluster, node: Node, address: str, tmp_path: Path
) -> None:
    bed = AgentBed(node, str(tmp_path / "agent"), Authority(str(tmp_path / "ca")), NODE_NAME)
    try:
        bed.start(metrics_address=address)
        bed.wait_watching()
        pod = cluster.pod("a")
        bed.create(pod, {"app": "web"})
        wait_for("the endpoint", lambda: is_served(node, address))

        def shown() -> dict[str, float]:
            return {
                sample.name: sample.value
                for family in openmetrics_families(fetch(node, address, OPENMETRICS))  # type: ignore[no-untyped-call] # has none
                for sample in family.samples
            }

        agents = {name for name in documented() if name.startswith("ratchet_agent_")}
        well = {"ratchet_agent_watching": 1, "ratchet_agent_pods": 1, "ratchet_agent_troubles": 0}
        assert agents == set(well)
        wait_for("the pod", shown, until=lambda found: well.items() <= found.items())
        bed.attach(pod, metrics_address=address).succeeded()
        assert shown()["ratchet_labels_recalled_total"] == 1
        bed.stop_api()
        ill = {"ratchet_agent_watching": 0, "ratchet_agent_pods": 1, "ratchet_agent_troubles": 1}
        wait_for("trouble", shown, until=lambda found: ill.items() <= found.items(), timeout_s=30)
        node.delete(pod, config=bed.config(metrics_address=address)).succeeded()
    finally:
        bed.close()


def _labels(family: Metric) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for sample in family.samples:
        for name, value in sample.labels.items():
            if name != "le":
                found.setdefault(name, set()).add(
                    "the program's version" if name == "version" else value
                )
    return found


def documented() -> dict[str, tuple[str, dict[str, set[str]]]]:
    """The table of the metrics: type, and the labels with all their values."""
    with open(os.path.join(ROOT, "docs", "configuration.md"), encoding="utf-8") as file:
        section = file.read().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    table = {}
    row = re.compile(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
    for name, kind, cell in row.findall(section):
        label, _, values = cell.strip().partition(": ")
        labels = {label.strip("`"): set(values.replace("`", "").split(", "))} if label else {}
        table[name] = (kind, labels)
    return table


def test_nothing_is_served_unless_it_is_asked_for(cluster: Cluster, node: Node) -> None:
    node.add(cluster.pod("a"), in1_in2("b")).succeeded()
    assert node.children()
    listening = node.namespace.do(lambda: _listening(node.children()[0]))
    assert listening == []


def _listening(pid: int) -> list[str]:
    found = []
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
            found += [line for line in file if line.split()[3] == "0A"]  # TCP_LISTEN
    return found


def test_address_in_use_is_said_and_served_when_it_is_free(
    cluster: Cluster, node: Node, address: str
) -> None:
    other = node.namespace.do(lambda: socket.create_server((LOOPBACK, int(address[-5:]))))
    with other:
        pod = cluster.pod("a")
        assert node.add(pod, in1_in2("b"), config=metrics_at(node, address)).exit == 0
        wait_for("a line in the log", lambda: "metrics cannot be served" in node.log())
        node.add(cluster.pod("b"), PAIR, config=metrics_at(node, address)).succeeded()
        pod.netns.wait_ping("192.168.2.101")
    wait_for("it to be served", lambda: is_served(node, address))
    assert node.log().count("metrics cannot be served") == 1


@pytest.mark.parametrize(
    ("host", "is_soon"), [("no-such-host.invalid", False), ("a..b", True)], ids=["dns", "nonsense"]
)
def test_name_that_leads_nowhere_is_said_and_holds_up_no_pod(
    cluster: Cluster, node: Node, host: str, is_soon: bool
) -> None:
    """A node whose name servers do not answer takes ten seconds to find out."""
    config = metrics_at(node, f"{host}:9100")
    assert node.add(cluster.pod("a"), in1_in2("b"), config=config).succeeded().elapsed_s < 4
    assert node.add(cluster.pod("b"), PAIR, config=config).succeeded().elapsed_s < 4
    if is_soon:
        wait_for("a line in the log", lambda: "metrics cannot be served" in node.log())


@pytest.mark.parametrize("host", ["[::1]", ""])
def test_other_ways_to_write_the_address(cluster: Cluster, node: Node, host: str) -> None:
    address = f"{host}:{random_port()}"
    node.add(cluster.pod("a"), in1_in2("b"), config=metrics_at(node, address)).succeeded()
    reached = address if host else f"{node.address}{address}"
    wait_for("the endpoint", lambda: is_served(node, reached))


def test_changed_configuration_takes_effect_and_the_port_is_held_where_it_stays(
    cluster: Cluster, node: Node, address: str
) -> None:
    pod = cluster.pod("a")
    node.add(pod, in1_in2("b"), config=metrics_at(node, address)).succeeded()
    wait_for("the endpoint", lambda: is_served(node, address))
    before = scrape(node, address)

    def change(config: Config) -> None:
        """As the runtime's next call would, a second after the change before."""
        time.sleep(1.1)
        changed = request_config(config, in1_in2("b"), None)
        node.execute(changed, node.environ("ADD", pod)).finish().succeeded()

    change(metrics_at(node, address, wait_seconds=4))
    assert node.log().count("the configuration has changed") == 1
    assert node.log().count("metrics are served") == 1
    after = scrape(node, address)
    key = "ratchet_reconciliation_seconds_count"
    assert after[key] > before[key] > 0
    assert after['ratchet_pods{state="attached"}'] == 1

    host, _, port = address.partition(":")
    other = f"{host}:{int(port) + 1}"
    change(metrics_at(node, other))
    wait_for("the new address", lambda: is_served(node, other))
    assert not is_served(node, address)
    change(metrics_at(node, None))
    assert not is_served(node, other)


def test_client_that_says_nothing_holds_up_neither_pods_nor_for_long_a_scrape(
    cluster: Cluster, node: Node, address: str
) -> None:
    left, right = cluster.pod("a"), cluster.pod("b")
    node.add(left, in1_in2("b"), config=metrics_at(node, address)).succeeded()
    wait_for("the endpoint", lambda: is_served(node, address))
    port = int(address.partition(":")[2])
    with node.namespace.do(lambda: socket.create_connection((LOOPBACK, port))):
        added = node.add(right, PAIR, config=metrics_at(node, address)).succeeded()
        assert added.elapsed_s < 3
        left.netns.wait_ping("192.168.2.101")
        assert scrape(node, address).links() == (2, 0, 0)


def test_scrape_waits_neither_for_etcd_nor_for_pods(
    cluster: Cluster, node: Node, address: str
) -> None:
    labels = {"ratchet": "true"}
    for number in range(2, 102):
        labels |= primary(f"l{number}", None, f"p{number}", "in1", None, number)
    node.add(cluster.pod("a"), labels, config=metrics_at(node, address)).succeeded()
    wait_for("the endpoint", lambda: is_served(node, address))
    cluster.etcd.pause()
    try:
        for _ in range(3):
            began = time.monotonic()
            assert scrape(node, address).links() == (0, 100, 0)
            assert time.monotonic() - began < 1
            time.sleep(0.2)
    finally:
        cluster.etcd.resume()
