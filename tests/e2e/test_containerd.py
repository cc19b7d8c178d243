"""Pods whose sandboxes containerd makes, restarts and removes, on one node and on two."""

from __future__ import annotations

import itertools
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.cloud import Cloud, leases
from tests.e2e.containerd import Containerd, Sandbox
from tests.e2e.cri import CriError, PodConfig
from tests.e2e.spy import spying
from tests.lab import api_server
from tests.lab.namespaces import has_carrier, is_up, vxlan_of
from tests.lab.polling import hold_for, wait_for
from tests.lab.runtime import PAIR, in1_in2, primary

pytestmark = pytest.mark.root

PLACES = pytest.mark.parametrize("far", [0, 1], ids=["one node", "two nodes"])


def assert_linked(left: Sandbox, right: Sandbox) -> None:
    """Assert that the example's link is there, right at both ends, and carries pings."""
    same = left.containerd is right.containerd
    ends = ((left, "in1", "192.168.2.100", right), (right, "in2", "192.168.2.101", left))
    for near, ifname, address, far in ends:
        link = near.netns.wait_link(ifname, "veth" if same else "vxlan")
        # An end is made first, and brought up and given its address in further messages.
        wait_for(
            f"{ifname} to be up with its address",
            lambda near=near, ifname=ifname: (  # type: ignore[misc]
                is_up(near.netns.links()[ifname]),
                near.netns.addresses(ifname),
            ),
            until=lambda seen, address=address: seen == (True, [f"{address}/24"]),  # type: ignore[misc]
        )
        if not same:
            data = vxlan_of(link)
            assert data["remote"] == far.containerd.node.address
            assert data["port"] == 4789
            assert link["mtu"] == 1450
    if not same:
        assert (
            vxlan_of(left.netns.links()["in1"])["id"] == vxlan_of(right.netns.links()["in2"])["id"]
        )
    left.netns.wait_ping("192.168.2.101")
    right.netns.wait_ping("192.168.2.100")


def pair_of_pods(cloud: Cloud, far: int) -> tuple[Sandbox, Sandbox]:
    left = cloud.run("primary-pod", in1_in2("pair-pod"))
    right = cloud.run("pair-pod", PAIR, on=far)
    assert_linked(left, right)
    return left, right


# Unlabelled pods


def test_unlabelled_pods_are_the_bridges(cloud: Cloud, containerd: Containerd) -> None:
    cloud.end_children()
    containerd.node.rest()
    keys = cloud.etcd.tree()
    one, other = cloud.run("one"), cloud.run("other", {"app": "x", "ratchet": "false"})
    for sandbox in (one, other):
        status = sandbox.status
        assert status.ready
        assert sandbox.netns.addresses("eth0") == [f"{status.ip}/24"]
        assert sandbox.netns.names() == {"lo", "eth0"}
    assert one.netns.pings(other.status.ip)
    assert containerd.node.records() == []
    assert containerd.node.children() == []
    assert cloud.etcd.tree() == keys


# Linked pods


@PLACES
def test_primary_and_pair_are_linked_and_keep_their_usual_eth0(cloud: Cloud, far: int) -> None:
    left, right = pair_of_pods(cloud, far)
    for sandbox in (left, right):
        assert sandbox.netns.addresses("eth0") == [f"{sandbox.status.ip}/24"]


@PLACES
def test_the_pair_may_come_first(cloud: Cloud, far: int) -> None:
    right = cloud.run("pair-pod", PAIR, on=far)
    left = cloud.run("primary-pod", in1_in2("pair-pod"))
    assert_linked(left, right)


@PLACES
def test_the_link_is_there_before_the_second_pod_s_first_container(cloud: Cloud, far: int) -> None:
    """RunPodSandbox returns after the link was made: containers are started only then."""
    cloud.run("primary-pod", in1_in2("pair-pod"))
    right = cloud.run("pair-pod", PAIR, on=far)
    assert right.netns.link("in2") is not None


@PLACES
def test_annotations_need_no_api_server(cloud: Cloud, far: int) -> None:
    cloud.configure_annotations()
    left = cloud.run("primary-pod", annotations=in1_in2("pair-pod"))
    right = cloud.run("pair-pod", annotations=PAIR, on=far)
    assert_linked(left, right)
    assert cloud.api.requests == []


def test_annotations_may_hold_what_labels_cannot(cloud: Cloud) -> None:
    cloud.configure_annotations()
    left = cloud.run(
        "primary-pod",
        annotations=primary("in1", "2001:db8:1::1/126", "pair-pod", "in2", "2001:db8:1::2/126"),
    )
    right = cloud.run("pair-pod", annotations=PAIR, on=1)
    # The pair's ADD waits for its own end alone; the other node makes this one when it hears of it.
    left.netns.wait_link("in1", "vxlan")
    assert left.netns.addresses("in1") == ["2001:db8:1::1/126"]
    right.netns.wait_ping("2001:db8:1::1")


def test_pods_of_one_name_in_two_namespaces_are_two_pods(cloud: Cloud) -> None:
    left = cloud.run("primary-pod", in1_in2("pair-pod"))
    stranger = cloud.run("pair-pod", PAIR, namespace="other")
    right = cloud.run("pair-pod", PAIR, on=1)
    assert_linked(left, right)
    assert stranger.netns.names() == {"lo", "eth0"}


@pytest.mark.parametrize("restarted", ["primary", "pair"])
@pytest.mark.parametrize("moves", [False, True], ids=["same node", "other node"])
@PLACES
def test_a_pod_that_is_made_again_is_linked_again(
    cloud: Cloud, far: int, restarted: str, moves: bool
) -> None:
    left, right = pair_of_pods(cloud, far)
    near, place = (left, 0) if restarted == "primary" else (right, far)
    near.remove()
    kept, ifname = (right, "in2") if near is left else (left, "in1")
    wait_for("the cable to be out", lambda: not has_carrier(kept.netns.link(ifname)))
    again = cloud.run(near.pod.name, near.pod.labels, on=1 - place if moves else place)
    assert_linked(*((again, right) if near is left else (left, again)))


def test_ten_sandboxes_at_once(cloud: Cloud) -> None:
    """Five pairs, each of them across the two nodes, all ends at the same moment."""
    pods = []
    for number in range(5):
        labels = primary("in1", f"10.1.{number}.1", f"b{number}", "in2", f"10.1.{number}.2")
        pods += [
            (cloud.nodes[0], cloud.pod(f"a{number}", labels)),
            (cloud.nodes[1], cloud.pod(f"b{number}", PAIR)),
        ]
    with ThreadPoolExecutor(len(pods)) as pool:
        sandboxes = list(pool.map(lambda each: each[0].run(each[1]), pods))
    for number, left in enumerate(sandboxes[::2]):
        left.netns.wait_link("in1", "vxlan")
        left.netns.wait_ping(f"10.1.{number}.2")
    numbers = {vxlan_of(left.netns.links()["in1"])["id"] for left in sandboxes[::2]}
    assert len(numbers) == 5
    with ThreadPoolExecutor(len(pods)) as pool:
        list(pool.map(lambda sandbox: sandbox.remove(), sandboxes))


def test_ten_sandboxes_at_once_on_one_node(cloud: Cloud) -> None:
    """A chain: each pod is the pair of the one before and the primary of the next."""
    pods = [
        cloud.pod(
            f"hop{number}",
            primary("right", f"10.2.{number}.1", f"hop{number + 1}", "left", f"10.2.{number}.2"),
        )
        for number in range(9)
    ]
    pods.append(cloud.pod("hop9", PAIR))
    with ThreadPoolExecutor(len(pods)) as pool:
        sandboxes = list(pool.map(cloud.nodes[0].run, pods))
    for number, (near, far) in enumerate(itertools.pairwise(sandboxes)):
        near.netns.wait_link("right", "veth")
        far.netns.wait_link("left", "veth")
        near.netns.wait_ping(f"10.2.{number}.2")


# Removal


@PLACES
def test_removal_leaves_nothing(cloud: Cloud, far: int) -> None:
    left, right = pair_of_pods(cloud, far)
    addresses = [sandbox.status.ip for sandbox in (left, right)]
    for sandbox, address in zip((left, right), addresses, strict=True):
        assert address in leases(sandbox.containerd.node)
        sandbox.remove()
    # What "nothing" is: namespaces, links, keys, records, addresses, mounts, processes.
    assert cloud.problems_after_test() == []
    assert cloud.etcd.keys().keys() <= {"/ratchet/vxlanid"}


def test_removal_repeated_is_harmless(cloud: Cloud) -> None:
    left, _ = pair_of_pods(cloud, 1)
    for _ in range(3):
        left.stop()
    for _ in range(2):
        cloud.nodes[0].cri.remove_pod_sandbox(left.id)


@PLACES
def test_a_late_del_without_a_netns_does_not_harm_the_next_pod_of_that_name(
    cloud: Cloud, far: int
) -> None:
    left, right = pair_of_pods(cloud, far)
    left.stop()
    again = cloud.run("primary-pod", left.pod.labels)
    assert_linked(again, right)
    with spying(cloud.nodes[0].bin_dir) as spy, again.netns.watch("in1") as watch:
        left.stop()
        left.remove()
        late = spy.seen("DEL", left.id)
        assert late
        assert not any(execution.environ.get("CNI_NETNS") for execution in late)
        hold_for("the link", lambda: again.netns.pings("192.168.2.101"), duration_s=0.5)
        assert watch.flaps() == []
    assert_linked(again, right)


def test_del_succeeds_when_etcd_and_the_api_server_are_away(cloud: Cloud) -> None:
    left, right = pair_of_pods(cloud, 1)
    cloud.etcd.stop()
    cloud.api.allowed = False
    left.remove()
    assert left.id not in cloud.nodes[0].cri.list_pod_sandbox()
    cloud.etcd.start()
    # Nobody calls the plugin: the child remembers by itself.
    wait_for(
        "the keys of a removed pod to go",
        cloud.etcd.keys,
        until=lambda keys: not any("/primary-pod/" in key for key in keys),
    )
    right.netns.wait_no_carrier("in2")


# A containerd that dies


@PLACES
def test_links_outlive_containerd_and_it_removes_them_later(cloud: Cloud, far: int) -> None:
    left, right = pair_of_pods(cloud, far)
    with left.netns.watch("in1") as watch:
        for containerd in cloud.nodes:
            containerd.kill(signal.SIGKILL)
        assert left.netns.pings("192.168.2.101")
        for containerd in cloud.nodes:
            containerd.start()
        assert watch.flaps() == []
    assert left.status.ready
    left.remove()
    again = cloud.run("primary-pod", left.pod.labels)
    assert_linked(again, right)


def test_containerd_that_is_killed_during_an_add_is_cleaned_up_after(cloud: Cloud) -> None:
    """The plugin, which waits for its links, dies with it; the kubelet makes another sandbox.

    The first one is stopped at the end of the test only, and nothing of it is left then.
    """
    containerd = cloud.nodes[0]
    cloud.configure(wait="all", wait_seconds=3)
    pod = cloud.pod("primary-pod", in1_in2("pair-pod"))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(containerd.run, pod)
        wait_for("the plugin to wait for its links", containerd.node.records)
        containerd.kill()
        with pytest.raises(CriError):
            running.result(timeout=30)
    containerd.start()
    cloud.configure()
    assert list(containerd.cri.list_pod_sandbox().values()) == [False]
    left = containerd.run(cloud.pod("primary-pod", in1_in2("pair-pod")))
    right = cloud.run("pair-pod", PAIR, on=1)
    assert_linked(left, right)


# What is refused


def test_a_bad_label_fails_the_sandbox_and_is_named(cloud: Cloud, containerd: Containerd) -> None:
    labels = {**in1_in2("pair-pod"), "ratchet.local_ip": "192.168.2.300"}
    with pytest.raises(CriError) as caught:
        cloud.run("primary-pod", labels)
    assert "ratchet.local_ip" in str(caught.value)
    assert "192.168.2.300" in str(caught.value)
    assert containerd.cri.list_pod_sandbox() == {}
    assert cloud.problems_after_test() == []


def test_a_corrected_pod_runs(cloud: Cloud) -> None:
    """The kubelet tries again by itself, in another sandbox of the same pod."""
    wrong = cloud.pod("primary-pod", {**in1_in2("pair-pod"), "ratchet.pair_ifname": "lo"})
    with pytest.raises(CriError, match=r"ratchet\.pair_ifname"):
        cloud.nodes[0].run(wrong)
    right = cloud.run("pair-pod", PAIR, on=1)
    assert_linked(cloud.run("primary-pod", in1_in2("pair-pod")), right)


def test_a_pod_whose_labels_cannot_be_read_is_refused_until_they_can(cloud: Cloud) -> None:
    pod = cloud.pod("primary-pod", in1_in2("pair-pod"))
    cloud.api.faults.extend([api_server.status(503)] * 20)
    with pytest.raises(CriError, match="503"):
        cloud.nodes[0].run(pod)
    cloud.api.faults.clear()
    assert cloud.problems_after_test() == []
    assert_linked(cloud.nodes[0].run(pod), cloud.run("pair-pod", PAIR, on=1))


def test_a_pod_runs_while_etcd_is_away_and_its_links_follow(cloud: Cloud) -> None:
    cloud.configure(wait_seconds=1)
    cloud.etcd.stop()
    left = cloud.run("primary-pod", in1_in2("pair-pod"))
    right = cloud.run("pair-pod", PAIR, on=1)
    assert left.status.ip
    cloud.etcd.start()
    assert_linked(left, right)


# What containerd demands


@pytest.mark.parametrize(
    ("labels", "address"),
    [
        ({"ratchet.public_ip": "198.51.100.7"}, "198.51.100.7"),
        ({}, "192.168.2.100"),
    ],
    ids=["public_ip", "first link"],
)
def test_a_boot_network_without_addresses_is_accepted(
    cloud: Cloud, labels: dict[str, str], address: str
) -> None:
    cloud.configure(boot_network={"type": "loopback"})
    left = cloud.run("primary-pod", {**in1_in2("pair-pod"), **labels})
    status = left.status
    assert (status.ready, status.ip) == (True, address)
    assert "eth0" not in left.netns.names()
    assert_linked(left, cloud.run("pair-pod", PAIR, on=1))


def test_a_pod_without_any_address_is_accepted_with_a_made_up_one(cloud: Cloud) -> None:
    cloud.configure(boot_network={"type": "loopback"})
    assert cloud.run("pair-pod", PAIR).status.ip.startswith("169.254.")


# What containerd passes


def test_what_containerd_passes(cloud: Cloud, containerd: Containerd) -> None:
    """The facts of docs/runtimes.md."""
    cloud.configure_annotations()
    with spying(containerd.bin_dir) as spy:
        sandbox = cloud.run("primary-pod", {"app": "x"}, in1_in2("pair-pod"))
        sandbox.remove()
        executions = spy.seen()
    # StopPodSandbox, RemovePodSandbox; never CHECK, GC, STATUS.
    assert [execution.command for execution in executions] == ["ADD", "DEL", "DEL"]
    add, delete, late = executions
    assert add.environ["CNI_CONTAINERID"] == sandbox.id
    assert add.environ["CNI_IFNAME"] == "eth0"
    assert add.environ["CNI_PATH"] == containerd.bin_dir
    assert add.environ["CNI_NETNS"].startswith("/var/run/netns/cni-")
    args = dict(pair.split("=", 1) for pair in add.environ["CNI_ARGS"].split(";"))
    assert args == {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": "default",
        "K8S_POD_NAME": "primary-pod",
        "K8S_POD_INFRA_CONTAINER_ID": sandbox.id,
        "K8S_POD_UID": sandbox.pod.uid,
    }
    assert "LD_LIBRARY_PATH" in add.environ
    # The annotations, all of them, and no labels anywhere.
    assert add.config["runtimeConfig"] == {
        "io.kubernetes.cri.pod-annotations": sandbox.pod.annotations
    }
    assert "args" not in add.config
    assert "prevResult" not in add.config
    assert delete.environ["CNI_NETNS"] == add.environ["CNI_NETNS"]
    assert delete.config["prevResult"]["ips"]
    assert not late.environ.get("CNI_NETNS")
    assert "prevResult" not in late.config
    # The same configuration, with the same annotations, at the DEL.
    assert {**delete.config, "prevResult": None} == {**add.config, "prevResult": None}


def test_without_the_capability_containerd_passes_no_annotations(
    cloud: Cloud, containerd: Containerd
) -> None:
    with spying(containerd.bin_dir) as spy:
        cloud.run("plain", annotations={"ratchet": "false"})
        (add,) = spy.seen("ADD")
    assert "runtimeConfig" not in add.config


def test_a_failed_add_is_followed_by_a_del(cloud: Cloud, containerd: Containerd) -> None:
    pod: PodConfig = cloud.pod("primary-pod", {**in1_in2("pair-pod"), "ratchet.pair_ifname": "lo"})
    with spying(containerd.bin_dir) as spy:
        with pytest.raises(CriError):
            containerd.run(pod)
        commands = [execution.command for execution in spy.seen()]
    assert commands == ["ADD", "DEL"]
