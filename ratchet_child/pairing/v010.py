"""A link in the words of Ratchet CNI v0.1.0: four keys on its pair, for one link of one primary.

A node of v0.1.0 reads them to pair with ours, and what it writes there is read as if it had been
declared. Between our own nodes a link is what its declaration says. There is room for one link, so
with two primaries at a pair the keys can be a mixture, which whoever comes last puts right. Apart
so that all of this can go in one piece when no node of v0.1.0 is left.

`vxlanid` is written first and removed last: it tells whose the others are, also after a crash.
"""

from __future__ import annotations

from ratchet.links import Link
from ratchet.names import is_new_ifname, is_pod_name
from ratchet_child.model import keys
from ratchet_child.model.keys import Declaration, PodKey, Published
from ratchet_child.model.links import DeclaredLink
from ratchet_child.pairing.association import is_node, place_of, readable, value_of
from ratchet_child.pairing.ringing import Ringer
from ratchet_child.store.api import Entry, Remove, Set, Store

UNTOLD = "?"  # the primary's interface, which v0.1.0 does not tell; no label can have that name

_NAMES = ("primaryname", "pairip", "pairifname", "vxlanid")  # in the order of their removal


def offer(pod: PodKey, own: dict[str, Entry]) -> DeclaredLink | None:
    """Return the link that these keys declare on a pod; None when they make no sense."""
    primary = value_of(own, "primaryname")
    vni = value_of(own, "vxlanid") or ""
    ifname = value_of(own, "pairifname")
    if not primary or not ifname or not (vni.isascii() and vni.isdigit()):
        return None
    if not is_new_ifname(ifname) or not is_pod_name(primary):
        return None
    if len(vni) > len(str(keys.LAST_VNI)) or not 0 < int(vni) <= keys.LAST_VNI:
        return None
    try:
        address = keys.legacy_address(value_of(own, "pairip"))
    except ValueError:
        return None
    link = Link(
        ifname=UNTOLD, address=None, pair=pod.name, pair_ifname=ifname, pair_address=address
    )
    return DeclaredLink(pod.sibling(primary), link, int(vni), own["primaryname"].created)


def is_half_written(own: dict[str, Entry]) -> bool:
    """Say whether another primary is writing its words over these, or has left off in the middle.

    `primaryname` comes last. Until then the name is one primary's and the VNI the other's.
    """
    name = own.get("primaryname")
    return name is not None and any(
        own[word].modified > name.modified for word in _NAMES if word in own
    )


def is_v010_only(declared: DeclaredLink) -> bool:
    """Say whether a link is one that `offer` has read: no declaration of ours stands behind it."""
    return declared.link.ifname == UNTOLD


def is_ours(store: Store, pod: PodKey, there: dict[str, Entry]) -> bool:
    """Say whether a pod is on a node of ours, where `there` stands below its association.

    The links of such a pod are in declarations: what only these keys tell of it is a trace of what
    v0.1.0 has written when the pod was on another node. Where a node of ours was set back to
    v0.1.0, what it had published stands, but for other containers.
    """
    place = place_of(there)
    if place is None or not is_node(place.address):
        return False
    entry = store.get(keys.node_pod(place.address, pod))
    if entry is None:
        return False
    try:
        return Published.loads(entry.value).container == place.container
    except ValueError:
        return True


def is_mixed(
    there: dict[str, Entry], primary: PodKey, pair: PodKey, declaration: Declaration
) -> bool:
    """Say whether two primaries wrote a pair's keys at the same time, and this one was last."""
    if value_of(there, "primaryname") != primary.name:
        return False
    right = keys.legacy(pair, primary.name, declaration)
    base = f"{keys.association(pair)}/"
    return any(value_of(there, key.removeprefix(base)) != value for key, value in right.items())


class V010Keys:
    """Every method talks to etcd and raises StoreError when it cannot.

    `there` is what was last read below the pair's association.
    """

    def __init__(self, store: Store, ringer: Ringer) -> None:
        self._store = store
        self._ringer = ringer

    def write(self, primary: PodKey, pair: PodKey, declaration: Declaration) -> None:
        """Write a link.

        Of two primaries that do so at once the one whose `primaryname` comes last sees the other's
        and looks whether the keys are all its own.
        """
        words = keys.legacy(pair, primary.name, declaration)
        vxlanid, vni = next(iter(words.items()))
        is_written = self._store.create(vxlanid, vni) is not None
        if not is_written and self._tell_of_an_old_link(primary, pair, declaration):
            return
        while True:
            *_, before = self._store.together(
                *(
                    Set(key, value)
                    for key, value in words.items()
                    if key != vxlanid or not is_written
                )
            )
            if before in (None, primary.name):
                return
            there, _ = self._store.tree(keys.association(pair))
            if not is_mixed(there, primary, pair, declaration):
                return
            is_written = False

    def stand(self, primary: PodKey, pair: PodKey, declaration: Declaration) -> bool:
        """Say whether the keys tell all of a link, or all of another primary's that is declared.

        A child that starts again need not write then. What it wrote over another primary's link
        would be a mixture meanwhile, and no later link.
        """
        there, _ = self._store.tree(keys.association(pair), recursive=True)
        name = value_of(there, "primaryname")
        if name is None or name == primary.name:
            return name is not None and not is_mixed(there, primary, pair, declaration)
        base = f"{keys.association(pair)}/"
        for key, entry in there.items():
            if not key.startswith(f"links/{name}:"):
                continue
            other = readable(primary, base + key, entry, pair.name)
            if other is not None and not other.gone:
                words = keys.legacy(pair, name, other)
                if all(value_of(there, one.removeprefix(base)) == words[one] for one in words):
                    return True
        return False

    def _tell_of_an_old_link(self, primary: PodKey, pair: PodKey, declaration: Declaration) -> bool:
        """Say whether the keys tell a node of ours of a link at another interface of its pod.

        That link is to stay. Its primary is on a node of v0.1.0, which writes of it nowhere else
        and never again, while the pair's node reads the new one in its declaration.
        """
        there, _ = self._store.tree(keys.association(pair))
        other = offer(pair, there)
        if (
            other is None
            or other.primary == primary
            or other.link.pair_ifname == declaration.link.pair_ifname
            or self._store.get(keys.claim(other.vni or 0)) is not None
        ):
            return False
        its_place, _ = self._store.tree(keys.association(other.primary))
        return (
            place_of(its_place) is not None
            and not is_ours(self._store, other.primary, its_place)
            and is_ours(self._store, pair, there)
        )

    def unmix(
        self, primary: PodKey, pair: PodKey, declaration: Declaration, there: dict[str, Entry]
    ) -> dict[str, Entry]:
        """Write a link again for as long as its keys are a mixture; the keys as they are then."""
        while is_mixed(there, primary, pair, declaration):
            self.write(primary, pair, declaration)
            there, _ = self._store.tree(keys.association(pair), recursive=True)
        return there

    def renumber(self, primary: PodKey, pair: PodKey, old: Declaration, new: Declaration) -> None:
        """Write a link with its new VNI, if it is the one that stands there."""
        there, _ = self._store.tree(keys.association(pair))
        is_its_own = value_of(there, "primaryname") == primary.name
        if is_its_own and value_of(there, "vxlanid") == str(old.vni):
            self.write(primary, pair, new)

    def remove(
        self, primary: PodKey, pair: PodKey, declaration: Declaration, there: dict[str, Entry]
    ) -> None:
        """Remove the keys of a link that is being taken back.

        With two primaries at the same pair a crash can leave a mixture.
        """
        base, name = keys.association(pair), value_of(there, "primaryname")
        is_its_vni = value_of(there, "vxlanid") in (None, str(declaration.vni))
        if is_its_vni and name in (None, primary.name):
            doomed = list(_NAMES)
        elif is_its_vni:
            doomed = ["vxlanid"]
        elif name == primary.name and not self._is_declared(pair, there, by=primary.name):
            doomed = ["primaryname"]
        else:
            return
        removed = self._store.together(
            *(Remove(f"{base}/{one}", there[one].modified) for one in doomed if one in there)
        )
        if any(removed) and name not in (None, primary.name):
            self._ringer.ring_wherever(primary.sibling(str(name)), pair)

    def remove_late(self, primary: PodKey, pair: PodKey, there: dict[str, Entry]) -> None:
        """Remove keys that etcd has written late, when their link had been taken back."""
        if not any(name in there for name in _NAMES):
            return
        if value_of(there, "primaryname") not in (None, primary.name):
            return
        if self._is_declared(pair, there):
            return
        base = keys.association(pair)
        self._store.together(
            *(Remove(f"{base}/{name}", there[name].modified) for name in _NAMES if name in there)
        )

    def _is_declared(self, pair: PodKey, there: dict[str, Entry], by: str | None = None) -> bool:
        """Say whether a link with the VNI that stands there is declared, by one primary or any."""
        vni = value_of(there, "vxlanid")
        declarations, _ = self._store.tree(keys.declarations(pair))
        for key, entry in declarations.items():
            if by in (None, keys.split_declaration(key)[0]):
                declaration = readable(pair, key, entry, pair.name)
                if declaration and not declaration.gone and str(declaration.vni) == vni:
                    return True
        return False
