"""A pod's condition `ratchet/links`, for pods that ask for it by a readiness gate. Pure.

It is true when every link of the pod is up: those that it declares and those that others declare on
it. A pod that has no link yet, of either sort, waits for one: who asks for the condition wants to
be told of links.
"""

from __future__ import annotations

from ratchet.status import ERROR, UP, LinkStatus
from ratchet_child.agent.notes import holder
from ratchet_child.agent.seen import Condition
from ratchet_child.agent.views import PodView

_MOST_NAMED = 5
_LONGEST = 1000


def condition(view: PodView) -> Condition | None:
    """Return what the pod's condition should be; None when that is not known yet."""
    if view.superseded:
        reason = "StandsBy" if view.stands_by else "NameTaken"
        return _false(reason, f"{holder(view)} has the name {view.key.name}")
    if not view.is_settled:
        return None
    if not view.links:
        return _false(
            "NoLink", "the pod declares no link, and no other pod declares one with it yet"
        )
    wrong = [link for link in view.links if link.state == ERROR]
    if wrong:
        return _false("LinkFailed", _named(wrong))
    waiting = [link for link in view.links if link.state != UP]
    if waiting:
        return _false("LinkWaiting", _named(waiting))
    count = len(view.links)
    return Condition("True", "LinksUp", "1 link is up" if count == 1 else f"{count} links are up")


def _false(reason: str, message: str) -> Condition:
    return Condition("False", reason, message[:_LONGEST])


def _named(links: list[LinkStatus]) -> str:
    told = [
        f"{link.ifname} to {link.peer}: {link.error}"
        if link.error
        else f"{link.ifname} waits for {link.peer or 'a pod that declares a link with it'}"
        for link in links[:_MOST_NAMED]
    ]
    if len(links) > _MOST_NAMED:
        told.append(f"and {len(links) - _MOST_NAMED} more")
    return ", ".join(told)
