"""The keys in etcd that follow from which containers there are."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Generator, Iterator

from tests.faults.observed import PREFIX, Observed, with_prefix
from tests.faults.runtimes import Sandbox
from tests.faults.topology import Link, PodId
from tests.faults.world import World


def keys(world: World, seen: Observed) -> Iterator[str]:
    expected: set[str] = set()
    optional: set[str] = set()
    vnis: dict[int, str] = {}
    for sandbox, _ in world.late:
        optional |= _published_late(world, seen, sandbox).keys()
    machines = _machines(world, seen)
    superseded = {sandbox.pod.container_id for sandbox, _ in world.late}
    # What a child that was killed had claimed for one of these, it gives back at the DEL.
    optional |= {
        key
        for key, entry in seen.keys.items()
        if key.startswith(f"{PREFIX}/vni/") and (entry.value or "").split(" ")[0] in superseded
    }
    for pod, sandbox in world.attached.items():
        node = world.nodes[sandbox.node]
        for name, value in (
            ("id", sandbox.pod.container_id),
            ("parentiface", "eth0"),
            ("parentaddr", node.address),
        ):
            key = f"{PREFIX}/association/{pod}/{name}"
            expected.add(key)
            yield from _must_be(seen, key, value)
        links = world.topology.declared_by(pod)
        key = f"{PREFIX}/nodes/{node.address}/pods/{pod}"
        expected.add(key)
        wanted: dict[str, object] = {
            "state_dir": node.state_dir,
            "container": sandbox.pod.container_id,
            "declared": [[link.pair.name, link.ifname] for link in links],
            "machine": machines.get(node.number),
        }
        if (published := _sorted(_json(seen, key))) != _sorted(wanted):
            yield f"key {key}: {published}, not {wanted}"
        for link in links:
            yield from _declared(world, seen, sandbox, link, expected, vnis)
    optional |= yield from _machine_keys(world, seen, machines)
    optional |= _reserved(world, seen)
    yield from _legacy(world, seen, expected)
    if f"{PREFIX}/vxlanid" in seen.keys:
        expected.add(f"{PREFIX}/vxlanid")
    elif vnis:
        yield "key vxlanid is gone"
    there = {key for key, entry in seen.keys.items() if entry.value is not None}
    bells = {key for key in there if "/bell/" in key and seen.keys[key].expires}
    for key in sorted(there - expected - optional - bells - seen.strangers):
        yield f"a key of nobody: {key} = {seen.keys[key].value}"
    yield from _directories(seen, expected | optional | bells | seen.strangers)


def _machines(world: World, seen: Observed) -> dict[int, str]:
    """Return which machine each node with published containers is, by what it has published.

    All of its entries and its own key must then name the same one. A container that lost its name
    to a newer one stays published until its DEL, below the address that its node had.
    """
    found: dict[int, str] = {}
    for pod, sandbox in sorted(world.attached.items()):
        published = _json(seen, f"{PREFIX}/nodes/{world.nodes[sandbox.node].address}/pods/{pod}")
        machine = (published or {}).get("machine")
        if isinstance(machine, str) and machine:
            found.setdefault(sandbox.node, machine)
    for sandbox, _ in world.late:
        for published in _published_late(world, seen, sandbox).values():
            machine = published.get("machine")
            if isinstance(machine, str) and machine:
                found.setdefault(sandbox.node, machine)
    return found


def _published_late(world: World, seen: Observed, sandbox: Sandbox) -> dict[str, dict[str, object]]:
    """Return the entries, by key, of a container whose DEL is still to come.

    One below a former address of its node tells how old the container is.
    """
    node = world.nodes[sandbox.node]
    found = {}
    for address in (node.first_address, node.second_address):
        key = f"{PREFIX}/nodes/{address}/pods/{sandbox.id}"
        published = _json(seen, key)
        if published is not None and published.get("container") == sandbox.pod.container_id:
            found[key] = published
    return found


def _machine_keys(
    world: World, seen: Observed, machines: dict[int, str]
) -> Generator[str, None, set[str]]:
    """Return the keys with which the nodes that have published pods tell that they are there.

    One may be missing: a key that somebody removes is written again when it is renewed the next
    time, up to 20 s later, and a child that is stopped renews none.
    """
    for machine, times in Counter(machines.values()).items():
        if times > 1:
            yield f"{times} nodes say that they are machine {machine}"
    keys = set()
    for number, machine in machines.items():
        # A request that was on its way when the address changed: that key is not renewed.
        keys |= {
            old
            for old, entry in seen.keys.items()
            if old.startswith(f"{PREFIX}/machines/")
            and old.endswith(f"@{machine}")
            and entry.expires
        }
        key = f"{PREFIX}/machines/{world.nodes[number].address}@{machine}"
        keys.add(key)
        if key in seen.keys and not seen.keys[key].expires:
            yield f"key {key} does not expire"
        if key in seen.keys and set(_json(seen, key) or {}) != {"host", "since"}:
            yield f"key {key}: {seen.keys[key].value}"
    return keys


def _reserved(world: World, seen: Observed) -> set[str]:
    """Return the keys that keep the VNI of a link for its primary, which has gone, for a while."""
    kept = set()
    for link in world.topology.links:
        if link.primary in world.attached or link.pair not in world.attached:
            continue
        key = _declaration_key(link)
        declared = declaration(seen, link) or {}
        claim = f"{PREFIX}/vni/{declared.get('vni')}"
        if declared.get("gone") is True and seen.keys[key].expires:
            kept.add(key)
            if claim in seen.keys and seen.keys[claim].expires:
                kept.add(claim)
    return kept


def _declared(
    world: World,
    seen: Observed,
    sandbox: Sandbox,
    link: Link,
    expected: set[str],
    vnis: dict[int, str],
) -> Iterator[str]:
    key = _declaration_key(link)
    expected.add(key)
    found = declaration(seen, link)
    if found is None:
        yield f"key {key} is missing"
        return
    vni = found.get("vni")
    if not isinstance(vni, int):
        yield f"key {key} has no VNI: {found}"
        return
    wanted: dict[str, object] = {
        "container": sandbox.pod.container_id,
        "vni": vni,
        "ifname": link.ifname,
        "address": link.address and with_prefix(link.address),
        "pair_ifname": link.pair_ifname,
        "pair_address": link.pair_address and with_prefix(link.pair_address),
        **_properties(link),
    }
    if (said := world.said_of(link)) is not None:
        wanted["override"] = {"is_down": said.is_out}
    if found != wanted:
        yield f"key {key}: {found}, not {wanted}"
    if vni in vnis:
        yield f"VNI {vni} is declared twice: {key} and {vnis[vni]}"
    vnis[vni] = key
    claim = f"{PREFIX}/vni/{vni}"
    expected.add(claim)
    relative = key.removeprefix(f"{PREFIX}/")
    yield from _must_be(seen, claim, f"{sandbox.pod.container_id} {relative}")


def _properties(link: Link) -> dict[str, object]:
    said = link.properties
    found: dict[str, object] = {} if said.mtu is None else {"mtu_bytes": said.mtu}
    for name, rate in (("impairment", said.rate_kbit), ("pair_impairment", said.pair_rate_kbit)):
        if rate is not None:
            found[name] = {"rate_bits": rate * 1000}
    return found


def _legacy(world: World, seen: Observed, expected: set[str]) -> Iterator[str]:
    """The keys of v0.1.0 tell of one link that is declared, of all of it, or are not there.

    They have to be there while a pod has one possible primary and that one is attached: of
    several, the one that wrote last may have gone and taken them with it.
    """
    for pair in world.topology.pods:
        base = f"{PREFIX}/association/{pair}"
        names = ("vxlanid", "pairip", "pairifname", "primaryname")
        there = {
            name: seen.keys[f"{base}/{name}"].value
            for name in names
            if f"{base}/{name}" in seen.keys
        }
        links = [link for link in world.topology.links if link.pair == pair]
        present = [link for link in links if link.primary in world.attached]
        if not there:
            if present and len({link.primary for link in links}) == 1:
                yield f"the keys of v0.1.0 on {pair} are missing"
            continue
        expected |= {f"{base}/{name}" for name in there}
        right = []
        first: set[PodId] = set()
        for link in present:
            if link.primary in first:
                continue
            first.add(link.primary)
            declared = declaration(seen, link) or {}
            address = link.pair_address or ""
            right.append(
                {
                    "vxlanid": str(declared.get("vni")),
                    "pairip": address.split("/")[0],
                    "pairifname": link.pair_ifname,
                    "primaryname": link.primary.name,
                }
            )
        if there not in right:
            yield f"the keys of v0.1.0 on {pair} are {there}, none of {right}"


def _directories(seen: Observed, keys: set[str]) -> Iterator[str]:
    allowed = {f"{PREFIX}/"}
    for key in keys:
        parts = key.split("/")
        allowed |= {"/".join(parts[:n]) + "/" for n in range(2, len(parts))}
        if "/pods/" in key:  # the bells of a node that has pods have expired
            allowed.add(key.split("/pods/")[0] + "/bell/")
    for key, entry in seen.keys.items():
        if entry.value is None and key not in allowed:
            yield f"an empty directory: {key}"


def _declaration_key(link: Link) -> str:
    return f"{PREFIX}/association/{link.pair}/links/{link.primary.name}:{link.ifname}"


def declaration(seen: Observed, link: Link) -> dict[str, object] | None:
    return _json(seen, _declaration_key(link))


def _json(seen: Observed, key: str) -> dict[str, object] | None:
    entry = seen.keys.get(key)
    with contextlib.suppress(ValueError):
        decoded = json.loads((entry.value if entry else None) or "")
        if isinstance(decoded, dict):
            return decoded
    return None


def _sorted(published: dict[str, object] | None) -> dict[str, object] | None:
    if published is None or not isinstance(declared := published.get("declared"), list):
        return published
    return {**published, "declared": sorted(declared)}


def _must_be(seen: Observed, key: str, value: str) -> Iterator[str]:
    entry = seen.keys.get(key)
    if entry is None:
        yield f"key {key} is missing"
    elif entry.value != value:
        yield f"key {key} is {entry.value}, not {value}"
