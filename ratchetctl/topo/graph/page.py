"""A drawing as a page that needs nothing else: one file, which asks nobody for anything.

What files and machines have named reaches the page as JSON, and the page's scripts write it as
text. Should a name get past that, the page's policy (Content-Security-Policy) still lets no script
run but the two that are here, known by their hashes, and no address be asked but the server's own.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import os
import re
import time
from typing import Any

from ratchetctl.topo.graph import library, looks
from ratchetctl.topo.graph.picture import Line, Picture, Spot
from ratchetctl.topo.graph.seen import EndSeen
from ratchetctl.topo.model import End

ASSETS = os.path.join(os.path.dirname(__file__), "assets")
POLL_MS = 2000

Json = dict[str, Any]


def page(picture: Picture, *, is_served: bool = False) -> str:
    """Return the page; a served one asks its server for what is new."""
    drawing = json.dumps(
        {
            "name": looks.printable(picture.name),
            "is_served": is_served,
            "poll_ms": POLL_MS,
            "looks": _looks(),
            "nodes": [_node(spot) for spot in picture.spots],
            "links": [_link(line) for line in picture.lines],
            "now": now(picture),
        },
        separators=(",", ":"),
    )
    parts = {
        "policy": policy(is_served=is_served),
        "generator": "ratchetctl",
        "title": html.escape(looks.printable(picture.name)),
        "style": _asset("page.css"),
        "drawing": _harmless(drawing),
        "library": _asset(library.FILE),
        "script": _script(),
    }
    # In one pass: what is put in is not looked at again.
    return re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], _asset("page.html"))


def policy(*, is_served: bool) -> str:
    """Return the page's Content-Security-Policy."""
    scripts = " ".join(_hash(one) for one in (_asset(library.FILE), _script()))
    connect = "'self'" if is_served else "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src {_hash(_asset('page.css'))};"
        f" img-src data:; connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def now(picture: Picture) -> Json:
    """Return what may change while the page is open."""
    place = {name: number for number, name in enumerate(picture.machines)}
    return {
        "at": round(time.time(), 3),
        "is_live": picture.is_live,
        "trouble": None if picture.trouble is None else looks.printable(picture.trouble),
        "machines": [looks.printable(name) for name in picture.machines],
        "colours": [looks.machine(number) for number in range(len(picture.machines))],
        "nodes": [
            [
                -1 if spot.machine is None else place[spot.machine],
                spot.pod is not None,
                [] if spot.pod is None else list(spot.pod.addresses),
                None if spot.pod is None else spot.pod.reason,
            ]
            for spot in picture.spots
        ],
        "links": [_state(line) for line in picture.lines],
    }


def _node(spot: Spot) -> Json:
    node = spot.node
    return {
        "name": spot.name,
        "title": looks.printable(spot.title),
        "label": looks.label(spot.title),
        "role": spot.role,
        "kind": "" if node is None else looks.printable(node.kind),
        "image": "" if node is None else looks.printable(node.image),
        "loopbacks": [] if node is None else [str(one) for one in node.loopbacks],
        "x": spot.x,
        "y": spot.y,
    }


def _link(line: Line) -> Json:
    return {
        "a": line.first,
        "b": line.second,
        "bend": 2 * looks.BEND * line.bend,
        "mtu": line.link.mtu,
        "ends": [_end(end) for end in line.link.ends],
    }


def _end(end: End) -> Json:
    return {
        "ifname": looks.printable(end.ifname),
        "address": None if end.address is None else str(end.address),
        "mac": end.mac,
        "does": None if end.impairment is None else str(end.impairment),
    }


def _state(line: Line) -> list[Any]:
    vni = next((one.vni for one in line.ends if one is not None and one.vni is not None), None)
    return [line.kind, line.state, vni, [None if one is None else _seen(one) for one in line.ends]]


def _seen(end: EndSeen) -> list[Any]:
    reason = None if end.reason is None else looks.printable(end.reason)
    return [
        end.state,
        reason,
        end.received_bytes,
        end.received_packets,
        end.sent_bytes,
        end.sent_packets,
    ]


def _looks() -> Json:
    def strokes(table: dict[str, looks.Stroke]) -> Json:
        return {
            name: {
                "light": one.light,
                "dark": one.dark,
                "dashes": list(one.dashes),
                "width": one.width,
                "words": one.words,
            }
            for name, one in table.items()
        }

    return {
        "mark": looks.MARK,
        "not_wired": looks.NOT_WIRED,
        "unplaced": looks.UNPLACED,
        "outside": looks.OUTSIDE,
        "signs": looks.SIGNS,
        "strokes": strokes(looks.STROKES),
        "states": strokes(looks.STATES),
    }


# Assets -----------------------------------------------------------------------------------------


@functools.cache
def _asset(name: str) -> str:
    with open(os.path.join(ASSETS, name), encoding="utf-8", newline="") as file:
        return file.read()


@functools.cache
def _script() -> str:
    inner = f"{_asset('drawing.js')}\n{_asset('panel.js')}"
    return f'"use strict";\n(() => {{\n{inner}}})();\n'


def _hash(text: str) -> str:
    """Return what a policy knows a script or a style by."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _harmless(text: str) -> str:
    """Return JSON that ends no element and begins no comment where it stands in a page."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
