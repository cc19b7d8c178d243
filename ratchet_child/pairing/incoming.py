"""IncomingLinks: the links that others declare on a pod, read from the keys below its association.

Nothing is asked of etcd and nothing written in here. What is no declaration is passed over, and
told once: anybody may write there, and a pod is looked at often.
"""

from __future__ import annotations

from collections.abc import Iterator

from ratchet import log
from ratchet.names import is_pod_name
from ratchet_child.model import keys
from ratchet_child.model.keys import Declaration, PodKey
from ratchet_child.model.links import DeclaredLink
from ratchet_child.pairing import old_links, v010
from ratchet_child.pairing.association import declared_by
from ratchet_child.store.api import Entry


class IncomingLinks:
    """Reads offers, and remembers of which pods it has told that some make no sense."""

    def __init__(self) -> None:
        self._wrong: dict[PodKey, tuple[int, str, str]] = {}  # declarations that are none, as told

    def on(self, pod: PodKey, own: dict[str, Entry]) -> list[DeclaredLink]:
        """Return the links declared on a pod, each once, even if v0.1.0's keys name it as well.

        Those with old nodes may be traces.
        """
        wrong: dict[str, str] = {}
        offers = [
            declared_by(primary, declaration, entry)
            for primary, declaration, entry in _declarations(pod, own, wrong)
            if not declaration.gone
        ]
        self._tell_wrong(pod, wrong)
        legacy = v010.offer(pod, own)
        if legacy is not None and not any(offer.primary == legacy.primary for offer in offers):
            offers.append(legacy)
        primaries = {offer.primary for offer in offers}
        return offers + [one for one in old_links.offers(pod, own) if one.primary not in primaries]

    def reserved_on(self, pod: PodKey, own: dict[str, Entry]) -> list[DeclaredLink]:
        """Return the links whose primaries have gone, and whose VNIs are kept for them."""
        wrong: dict[str, str] = {}  # `on` tells of these
        return [
            declared_by(primary, declaration, entry)
            for primary, declaration, entry in _declarations(pod, own, wrong)
            if declaration.gone
        ]

    def _tell_wrong(self, pod: PodKey, wrong: dict[str, str]) -> None:
        """Log declarations that are none: once, and in one line, as there may be thousands."""
        first = next(iter(wrong.items()), None)
        news = None if first is None else (len(wrong), *first)
        if news == self._wrong.get(pod):
            return
        if news is None:
            del self._wrong[pod]
            return
        self._wrong[pod] = news
        count, key, error = news
        log.warning("declarations cannot be read", pod=pod, count=count, key=key, error=error)


def _declarations(
    pod: PodKey, own: dict[str, Entry], wrong: dict[str, str]
) -> Iterator[tuple[PodKey, Declaration, Entry]]:
    """Yield what is declared on a pod, by whom; put into `wrong` what is none, and why."""
    for name, entry in own.items():
        if not name.startswith("links/"):
            continue
        primary, ifname = keys.split_declaration(name.removeprefix("links/"))
        try:
            declaration = Declaration.loads(entry.value, pod.name)
        except ValueError as error:
            wrong[name] = str(error)
            continue
        if declaration.link.ifname != ifname or not is_pod_name(primary):
            wrong[name] = "it contradicts its key"
            continue
        yield pod.sibling(primary), declaration, entry
