"""`ratchetctl demo`: shows on one machine what Ratchet does, and checks every claim it makes.

What is applied are the files of examples/, unchanged. Everything happens in a simulation of its own
name, which is ended whatever happens. The demo is also a smoke test: it ends with an error as soon
as something is not as it says.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import click
from rich.console import Console

from ratchetctl import manifest
from ratchetctl.errors import DemoError
from ratchetctl.interruption import interruptible
from ratchetctl.sim import containers, environment, etcd, netns, processes, runtime, sandbox
from ratchetctl.sim.directory import PodState, SimDirectory
from ratchetctl.sim.progress import Progress
from ratchetctl.sim.simulator import UNDERLAY, Plan, Simulator
from ratchetctl.sim.work import Work

LINK_TIMEOUT_S = 15.0
OSPF_TIMEOUT_S = 60.0
CLEAN_TIMEOUT_S = 15.0
COMMAND_TIMEOUT_S = 30.0
PARALLEL = 2

FIRST_VNI = 11
VXLAN_PORT = 4789
VXLAN_MTU_BYTES = 1450


@click.command()
@click.option(
    "--examples",
    type=click.Path(exists=True, file_okay=False),
    help="the directory with the examples (default: beside the source)",
)
@click.option(
    "--plugin-dir",
    "plugin_dirs",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    help="a directory with CNI plugins, searched before the usual places",
)
def demo(examples: str | None, plugin_dirs: Sequence[str]) -> None:
    """Show what Ratchet does, and check every claim.

    The demonstration makes links, attaches unlabelled pods, runs the cloud router and shows the
    keys in etcd. It needs root, etcd, the reference CNI plugins, iproute2, ping and FRR, and does
    not touch the machine's own network.
    """
    folder = examples or _examples()
    directory = SimDirectory(f"demo-{secrets.token_hex(3)}")
    console = Console(stderr=True)
    simulator = Simulator(directory, Progress(console), lambda text: click.echo(f"  {text}"))
    with interruptible():
        try:
            _Demo(simulator, folder, runtime.search_path(plugin_dirs)).run()
        finally:
            simulator.down()
    click.echo("\nEverything is as claimed.")


class _Demo:
    """The demo's chapters, in their order."""

    def __init__(self, simulator: Simulator, examples: str, plugin_dirs: Sequence[str]) -> None:
        self._sim = simulator
        self._directory = simulator.directory
        self._examples = examples
        self._plugin_dirs = plugin_dirs

    def run(self) -> None:
        self._up()
        self._two_nodes()
        self._unlabelled()
        self._cloud_router()
        self._keys()
        self._gone()

    def _up(self) -> None:
        _heading("A cluster of two nodes with its own etcd, and four pods")
        pods = self._read("primary-pair.yaml").pods + self._read("unlabelled.yaml").pods
        self._sim.up(Plan(nodes=2, plugin_dirs=self._plugin_dirs), pods)
        for pod in self._directory.pods():
            click.echo(f"  {pod.name} is on {pod.node}")

    def _two_nodes(self) -> None:
        _heading("A labelled pair on two nodes: one vxlan tunnel, pod to pod")
        primary, pair = self._sim.pod("primary-pod"), self._sim.pod("pair-pod")
        for pod, far, ifname in ((primary, pair, "in1"), (pair, primary, "in2")):
            link = self._wait_for_link(pod, ifname)
            self._show(pod, "ip", "-d", "link", "show", ifname)
            info = link["linkinfo"]["info_data"]
            _claim(f"{ifname} is a vxlan device", link["linkinfo"]["info_kind"] == "vxlan")
            _claim(f"its VNI is {FIRST_VNI}, the first", info["id"] == FIRST_VNI)
            remote = self._sim.node(far.node).address
            _claim(f"it leads to {far.node}, {remote}", info["remote"] == remote)
            _claim(f"on port {VXLAN_PORT}", info["port"] == VXLAN_PORT)
            _claim("its MTU is 50 below the underlay's", link["mtu"] == VXLAN_MTU_BYTES)
        self._ping(primary, "192.168.2.101", LINK_TIMEOUT_S)

    def _unlabelled(self) -> None:
        _heading("Unlabelled pods: bridge and host-local, as if Ratchet were not there")
        first, second = self._sim.pod("plain-a"), self._sim.pod("plain-b")
        self._show(first, "ip", "-brief", "address")
        names = [link["ifname"] for link in self._links(first)]
        _claim("plain-a has lo and eth0 and nothing else", names == ["lo", "eth0"])
        for pod in (first, second):
            records = os.path.join(self._directory.state_dir(pod.node), "attachments")
            _claim(
                f"Ratchet keeps no record of {pod.name}",
                not any(pod.container_id in name for name in os.listdir(records)),
            )
        _claim("the delegate's result names an address", bool(_address(second)))
        self._ping(first, _address(second), LINK_TIMEOUT_S)

    def _cloud_router(self) -> None:
        _heading("The cloud router: four pods at once, three links, two routers that speak OSPF")
        found = self._read("cloud-router/cloud-router.yaml")
        states = {state.name: state for state in self._sim.apply(found.pods)}
        work = [(states[pod.name], Work.of(pod, found.config_maps)) for pod in found.pods]
        for said in containers.run(self._directory, work, PARALLEL):
            click.echo(f"  {said}")
        kinds = {"centosa": ("in1", "veth"), "quagga-a": ("mid1", "vxlan")}
        kinds |= {"quagga-b": ("out1", "veth")}
        for name, (ifname, kind) in kinds.items():
            link = self._wait_for_link(states[name], ifname)
            _claim(f"{ifname} of {name} is {kind}", link["linkinfo"]["info_kind"] == kind)
        router, host = states["quagga-a"], states["centosa"]
        started = time.monotonic()
        _wait(
            "the routers are neighbours",
            OSPF_TIMEOUT_S,
            lambda: self._speaks(router, "show ip ospf neighbor", "Full"),
        )
        click.echo(_indented(self._router(router, "show ip ospf neighbor")))
        said = self._ping(host, "192.168.4.101", OSPF_TIMEOUT_S)
        click.echo(f"  ({time.monotonic() - started:.1f} s after the routers were started)")
        click.echo(_indented(self._router(router, "show ip route ospf")))
        ttls = re.findall(r"ttl=(\d+)", said)
        _claim("the replies come with ttl 62: through both routers", set(ttls) == {"62"})

    def _keys(self) -> None:
        _heading("What etcd holds")
        found = self._etcd()
        for key, value in found.items():
            click.echo(f"  {key} = {value}")
        _claim(
            "the next free VNI is above those in use",
            int(found["/ratchet/vxlanid"]) >= FIRST_VNI + 2,
        )
        _claim("unlabelled pods have no key", not any("plain-" in key for key in found))

    def _gone(self) -> None:
        _heading("The pods are deleted, then the cluster")
        self._sim.delete([pod.full_name for pod in self._directory.pods()])
        try:
            _wait(
                "of all keys only vxlanid is left",
                CLEAN_TIMEOUT_S,
                lambda: list(self._etcd()) == ["/ratchet/vxlanid"],
            )
        except DemoError as error:
            raise DemoError(f"{error}; left are {', '.join(self._etcd())}") from error
        ids = {one for path in self._directory.all_netns() if (one := netns.identity(path))}
        self._sim.down()
        _claim("no process of it is left", not processes.pids(ids))
        _claim("no file of it is left", not os.path.exists(self._directory.path))

    def _read(self, name: str) -> manifest.Manifest:
        path = os.path.join(self._examples, name)
        click.echo(f"  examples/{name}")
        return manifest.read([path])

    def _links(self, pod: PodState) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._run(pod, "ip", "-j", "-d", "link").stdout)
        return found

    def _wait_for_link(self, pod: PodState, ifname: str) -> dict[str, Any]:
        def find() -> dict[str, Any] | None:
            return next(
                (
                    link
                    for link in self._links(pod)
                    if link["ifname"] == ifname and "LOWER_UP" in link["flags"]
                ),
                None,
            )

        found: dict[str, Any] = _wait(f"{pod.name} has {ifname}", LINK_TIMEOUT_S, find)
        return found

    def _ping(self, pod: PodState, address: str, timeout_s: float) -> str:
        """Ping until it answers, then show three."""
        _wait(
            f"{pod.name} reaches {address}",
            timeout_s,
            lambda: self._run(pod, "ping", "-c", "1", "-W", "1", address).returncode == 0,
        )
        return self._show(pod, "ping", "-c", "3", "-i", "0.2", "-W", "1", address)

    def _speaks(self, pod: PodState, command: str, word: str) -> bool:
        return word in self._router(pod, command)

    def _router(self, pod: PodState, command: str) -> str:
        inside = sandbox.of(self._directory, pod)
        return inside.run(("vtysh", "-c", command), COMMAND_TIMEOUT_S).stdout

    def _etcd(self) -> dict[str, str]:
        return etcd.keys(self._directory.netns(UNDERLAY), "/ratchet")

    def _show(self, pod: PodState, *command: str) -> str:
        click.echo(f"  {pod.name}$ {' '.join(command)}")
        done = self._run(pod, *command)
        click.echo(_indented(done.stdout or done.stderr))
        if done.returncode != 0:
            raise DemoError(f"{' '.join(command)} in {pod.name} ended with {done.returncode}")
        return done.stdout

    def _run(self, pod: PodState, *command: str) -> subprocess.CompletedProcess[str]:
        with netns.inside(pod.netns):
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=environment.clean(),
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )


def _examples() -> str:
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for folder in (os.path.join(here, "examples"), os.path.abspath("examples")):
        if os.path.isdir(folder):
            return folder
    raise DemoError("the examples are not beside the program: give their folder with --examples")


def _address(pod: PodState) -> str:
    return str((pod.result or {})["ips"][0]["address"]).partition("/")[0]


def _heading(text: str) -> None:
    click.secho(f"\n== {text}", bold=True)


def _claim(text: str, holds: bool) -> None:
    if not holds:
        raise DemoError(f"not so: {text}")
    click.secho(f"  ok: {text}", fg="green")


def _wait(text: str, timeout_s: float, found: Callable[[], Any]) -> Any:
    """Return what found gives as soon as it is true. Raises DemoError after timeout_s."""
    deadline = time.monotonic() + timeout_s
    while not (answer := found()):
        if time.monotonic() > deadline:
            raise DemoError(f"not so in {timeout_s:.0f} s: {text}")
        time.sleep(0.1)
    click.secho(f"  ok: {text}", fg="green")
    return answer


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.strip().splitlines()).rstrip("\n")
