"""The etcd key layout: names of keys and the form of their values. Pure; no etcd in here.

Everything lives below the prefix (`etcd_prefix`, normally `/ratchet`). Keys are given relative to
it, without a leading slash: `Store` adds the prefix and quotes what a URL needs quoted.

    vxlanid                                   the next free VNI (RFC 7348 §4), as text
    vni/<vni>                                 the claim on a VNI: "<container> <declaration key>"
    association/<pod>/id                      the container, written last
    association/<pod>/parentiface             the lower device of its node's tunnels
    association/<pod>/parentaddr              the address of its node's tunnels
    association/<pair>/vxlanid                \\
    association/<pair>/pairip                  | the most recent primary's link, in the words of
    association/<pair>/pairifname              | Ratchet CNI v0.1.0; primaryname is written last
    association/<pair>/primaryname            /
    association/<pair>/links/<primary>:<ifname>   a declaration: every link of every primary (JSON)
    association/<pair>/v010/<primary>         a link with a primary on a v0.1.0 node, written down
                                              before the next one writes over it (JSON)
    nodes/<node>/pods/<pod>                   what a node has published for a pod (JSON)
    nodes/<node>/bell/<pod>                   "look at your links with this pod again" (expires)
    machines/<node>@<machine>                 a machine that is there, under that address (expires)

`<pod>` is the pod's name in the namespace `default` and `<namespace>:<name>` elsewhere; `<node>` is
the node's `parent_address`. Nothing from a label reaches a key but names that `ratchet.labels` has
checked, so no value can climb out of its directory.

The claim `vni/<vni>` makes it impossible to use a VNI twice when `vxlanid` is set back while links
exist.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from ratchet.cni.dataclasses import dataclass
from ratchet.cni.ip import Address
from ratchet.errors import shown
from ratchet.links import Link, Override, read_address
from ratchet.names import is_container_id, is_namespace, is_new_ifname, is_pod_name

VXLANID = "vxlanid"
MACHINES = "machines"
FIRST_VNI = 11
LAST_VNI = 2**24 - 1  # RFC 7348 §4: 24 bits

_DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class PodKey:
    """A pod by the name that other pods know it by."""

    namespace: str
    name: str

    def __lt__(self, other: PodKey) -> bool:
        """Have pods listed by namespace and name."""
        return (self.namespace, self.name) < (other.namespace, other.name)

    def __str__(self) -> str:
        """Return the pod as it stands in keys."""
        if self.namespace == _DEFAULT_NAMESPACE:
            return self.name
        return f"{self.namespace}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> PodKey:
        """Read a pod as it stands in keys. *Raises* ValueError for what no pod can be called."""
        namespace, colon, name = text.partition(":")
        found = cls(namespace, name) if colon else cls(_DEFAULT_NAMESPACE, text)
        if not (is_namespace(found.namespace) and is_pod_name(found.name)) or str(found) != text:
            raise ValueError(f"{text!a} is not a pod's name")
        return found

    def sibling(self, name: str) -> PodKey:
        """Return the pod of that name in the same namespace: pairs never cross namespaces."""
        return PodKey(self.namespace, name)


@dataclass(frozen=True, slots=True)
class Declaration:
    """A link as its primary's node has written it on the pair."""

    container: str  # the primary's
    vni: int
    link: Link
    refused: str = ""  # container of the pair that has another link at that interface
    # The primary has gone: only its VNI is kept, for a while, should it come back.
    gone: bool = False
    override: Override | None = None  # what an operator has set of it

    def dumps(self) -> str:
        value = {"container": self.container, "vni": self.vni, **self.link.to_json()}
        del value["pair"]  # it stands in the key
        if self.refused:
            value["refused"] = self.refused
        if self.gone:
            value["gone"] = True
        if self.override is not None:
            value["override"] = self.override.to_json()
        return json.dumps(value, separators=(",", ":"))

    @classmethod
    def loads(cls, text: str, pair: str) -> Declaration:
        """Read a declaration found on `pair`.

        *Raises* ValueError when the text is not one: etcd is shared, and what another program
        wrote there must not bring a node down. What was read a moment ago is kept: a pod with many
        links is looked at often.
        """
        return _recent(text, pair) if len(text) <= _LONGEST_KEPT else cls._read(text, pair)

    @classmethod
    def _read(cls, text: str, pair: str) -> Declaration:
        value = _object(text)
        return cls(
            container=_container(value),
            vni=_vni(value),
            link=Link.from_json({**value, "pair": pair}),
            refused=_container(value, "refused") if value.get("refused") else "",
            gone=value.get("gone") is True,
            override=_override(value.get("override")),
        )


_LONGEST_KEPT = 1024  # characters; ours are half as long
_recent = lru_cache(maxsize=512)(Declaration._read)  # noqa: SLF001 - its own, kept


@dataclass(frozen=True, slots=True)
class OldLink:
    """A link with a primary on a node of v0.1.0, as the pair's node has written it down.

    v0.1.0 has room for one link on a pair, and the next old primary writes over it.
    """

    container: str  # the pair's
    primary_container: str
    vni: int
    pair_ifname: str
    pair_address: Address | None
    since: int  # etcd's index of v0.1.0's own words

    def dumps(self) -> str:
        value = {
            "container": self.container,
            "primary_container": self.primary_container,
            "vni": self.vni,
            "pair_ifname": self.pair_ifname,
            "pair_address": None if self.pair_address is None else str(self.pair_address),
            "since": self.since,
        }
        return json.dumps(value, separators=(",", ":"))

    @classmethod
    def loads(cls, text: str) -> OldLink:
        """Read such a link. *Raises* ValueError when the text is not what `dumps` writes."""
        value = _object(text)
        since, ifname = value.get("since"), _string(value, "pair_ifname")
        if not isinstance(since, int) or isinstance(since, bool) or since < 0:
            raise ValueError(f"since {since!r} is not an index")
        if not is_new_ifname(ifname):
            raise ValueError(f"pair_ifname {ifname!r} is not an interface name")
        return cls(
            container=_string(value, "container"),
            primary_container=_string(value, "primary_container"),
            vni=_vni(value),
            pair_ifname=ifname,
            pair_address=(
                None
                if value.get("pair_address") is None
                else read_address(_string(value, "pair_address"))
            ),
            since=since,
        )


@dataclass(frozen=True, slots=True)
class Published:
    """What a node has written for one of its pods: enough to take it all back after a reboot."""

    container: str
    declared: tuple[tuple[str, str], ...]  # (pair, ifname) of each declaration
    state_dir: str = ""  # of the child that wrote it: a node with two networks has two
    machine: str = ""  # that wrote it: two may have one address

    def dumps(self) -> str:
        value = {
            "container": self.container,
            "declared": [list(one) for one in self.declared],
            "state_dir": self.state_dir,
        }
        if self.machine:
            value["machine"] = self.machine
        return json.dumps(value, separators=(",", ":"))

    def is_of(self, state_dir: str, machine: str) -> bool:
        """Say whether a child has written it, or a version that did not say who it was."""
        return self.state_dir in ("", state_dir) and (not machine or self.machine in ("", machine))

    @classmethod
    def loads(cls, text: str) -> Published:
        """Read a declaration. *Raises* ValueError when the text is not what `dumps` writes."""
        value = _object(text)
        declared = value.get("declared")
        if not isinstance(declared, list):
            raise ValueError("declared is not a list")
        pairs = []
        for one in declared:
            if not (isinstance(one, list) and len(one) == 2 and all(map(_is_text, one))):
                raise ValueError("declared holds something other than [pair, ifname]")
            if not (is_pod_name(one[0]) and is_new_ifname(one[1])):
                raise ValueError("declared holds something that is no pair or no interface")
            pairs.append((one[0], one[1]))
        return cls(
            container=_container(value),
            declared=tuple(pairs),
            state_dir=_string(value, "state_dir") if value.get("state_dir") else "",
            machine=_string(value, "machine") if value.get("machine") else "",
        )


def association(pod: PodKey) -> str:
    return f"association/{pod}"


def container(pod: PodKey) -> str:
    return f"association/{pod}/id"


def parent_interface(pod: PodKey) -> str:
    return f"association/{pod}/parentiface"


def parent_address(pod: PodKey) -> str:
    return f"association/{pod}/parentaddr"


def declarations(pair: PodKey) -> str:
    return f"association/{pair}/links"


def declaration(pair: PodKey, primary: str, ifname: str) -> str:
    return f"association/{pair}/links/{primary}:{ifname}"


def old_links(pair: PodKey) -> str:
    return f"association/{pair}/v010"


def old_link(pair: PodKey, primary: str) -> str:
    return f"association/{pair}/v010/{primary}"


def split_declaration(name: str) -> tuple[str, str]:
    """Split `<primary>:<ifname>` into its parts, neither of which can hold a colon."""
    primary, _, ifname = name.partition(":")
    return primary, ifname


def is_link_of(pod: PodKey, declaration_key: str) -> bool:
    """Say whether a declaration is one of the pod's or one on the pod."""
    pair, _, name = declaration_key.partition("/links/")
    return pair == association(pod) or split_declaration(name)[0] == pod.name


def claim(vni: int) -> str:
    return f"vni/{vni}"


def claim_value(container_id: str, declaration_key: str) -> str:
    return f"{container_id} {declaration_key}"


def node(address: str) -> str:
    return f"nodes/{address}"


def node_pods(address: str) -> str:
    return f"nodes/{address}/pods"


def node_pod(address: str, pod: PodKey) -> str:
    return f"nodes/{address}/pods/{pod}"


def machine(address: str, identity: str) -> str:
    return f"{MACHINES}/{address}@{identity}"


def bells(address: str) -> str:
    return f"nodes/{address}/bell"


def bell(address: str, pod: PodKey) -> str:
    return f"nodes/{address}/bell/{pod}"


def legacy(pair: PodKey, primary: str, declared: Declaration) -> dict[str, str]:
    """Return the most recent primary's link as Ratchet CNI v0.1.0 has it, in writing order.

    v0.1.0 adds `/24` to `pairip` itself, so the prefix length is not written.
    """
    base = association(pair)
    address = declared.link.pair_address
    return {
        f"{base}/vxlanid": str(declared.vni),
        f"{base}/pairip": "" if address is None else str(address.ip),
        f"{base}/pairifname": declared.link.pair_ifname,
        f"{base}/primaryname": primary,
    }


def legacy_address(text: str | None) -> Address | None:
    """Read v0.1.0's `pairip` as it uses it: always with a /24. *Raises* ValueError."""
    return read_address(f"{text}/24") if text else None


def _override(found: object) -> Override | None:
    if found is None:
        return None
    if not isinstance(found, dict):
        raise ValueError("override is not an object")
    return Override.from_json(found)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _vni(value: dict[str, Any]) -> int:
    vni = value.get("vni")
    if not isinstance(vni, int) or isinstance(vni, bool) or not 0 < vni <= LAST_VNI:
        raise ValueError(f"vni {vni!r} is not a number from 1 to {LAST_VNI}")
    return vni


def _string(value: dict[str, Any], key: str) -> str:
    found = value.get(key)
    if not _is_text(found):
        raise ValueError(f"{key} {found!r} is not a non-empty string")
    return str(found)


def _container(value: dict[str, Any], key: str = "container") -> str:
    found = value.get(key)
    if not isinstance(found, str) or not is_container_id(found):
        raise ValueError(f"{key} {shown(found)} is not a container ID")
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)
