"""The page: one file, nothing from elsewhere, no way in for what others have named."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from ratchetctl.topo.graph import library, looks, page, picture
from ratchetctl.topo.graph.seen import STATES

from .networks import HOSTILE, broken, hostile, network, random, seen

TWO = network([("a", "b"), ("b", "c")])


class Parsed(HTMLParser):
    """The elements of a page, and the text of its scripts and its style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.is_open = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.texts.append("")
        self.is_open = True

    def handle_endtag(self, tag: str) -> None:
        self.is_open = False

    def handle_data(self, data: str) -> None:
        if self.is_open:
            self.texts[-1] += data

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [
            (attrs, text)
            for (name, attrs), text in zip(self.tags, self.texts, strict=True)
            if name == tag
        ]


def drawing(text: str) -> dict[str, Any]:
    (data,) = [one for attrs, one in Parsed(text).of("script") if attrs.get("id") == "drawing"]
    found: dict[str, Any] = json.loads(data)
    return found


def test_vendored_library_is_the_one_that_is_named() -> None:
    path = os.path.join(page.ASSETS, library.FILE)
    with open(path, "rb") as file:
        content = file.read()
    assert hashlib.sha256(content).hexdigest() == library.SHA256
    assert f"v{library.VERSION} Copyright" in content[:200].decode()
    with open(os.path.join(page.ASSETS, library.LICENCE_FILE), encoding="utf-8") as file:
        assert "Permission to use, copy, modify, and/or distribute" in file.read()


def test_page_asks_nobody_for_anything() -> None:
    parsed = Parsed(page.page(picture.draw(TWO)))
    for tag, attrs in parsed.tags:
        assert "src" not in attrs, tag
        assert "srcset" not in attrs, tag
        assert attrs.get("href", "data:,") == "data:,", tag
    for _, style in parsed.of("style"):
        assert "url(" not in style
        assert "@import" not in style


def test_policy_lets_nothing_run_but_what_the_page_brings() -> None:
    parsed = Parsed(page.page(picture.draw(hostile(), seen(hostile()))))
    (policy,) = [
        str(attrs["content"])
        for attrs, _ in parsed.of("meta")
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["connect-src"] == "'none'"
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in policy

    def known(texts: list[str]) -> str:
        digests = (hashlib.sha256(text.encode()).digest() for text in texts)
        return " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests)

    scripts = [text for attrs, text in parsed.of("script") if "type" not in attrs]
    assert len(scripts) == 2
    assert rules["script-src"] == known(scripts)
    assert rules["style-src"] == known([text for _, text in parsed.of("style")])


def test_only_a_served_page_asks_and_only_its_server() -> None:
    drawn = picture.draw(TWO, seen(TWO))
    assert "connect-src 'self'" in page.policy(is_served=True)
    assert drawing(page.page(drawn, is_served=True))["is_served"] is True
    assert drawing(page.page(drawn))["is_served"] is False


def test_hostile_names_are_data() -> None:
    plain = Parsed(page.page(picture.draw(random(len(HOSTILE), 1))))
    parsed = Parsed(page.page(picture.draw(hostile(), seen(hostile()))))
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in plain.tags]
    assert not [name for _, attrs in parsed.tags for name in attrs if name.startswith("on")]
    ((_, title),) = parsed.of("title")
    assert title.strip() == HOSTILE[0]
    found = drawing(page.page(picture.draw(hostile(), seen(hostile()))))
    assert [node["title"] for node in found["nodes"][:-1]] == [
        looks.printable(text) for text in HOSTILE
    ]


def test_scripts_of_the_page_write_text_and_no_markup() -> None:
    for name in ("drawing.js", "panel.js"):
        with open(os.path.join(page.ASSETS, name), encoding="utf-8") as file:
            text = file.read()
        forbidden = (
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|\.html\(|Function\("
        )
        assert not re.search(forbidden, text), name
        assert "http" not in text.replace("http://www.w3.org", ""), name


def test_what_may_change_is_told_apart_from_what_does_not() -> None:
    drawn = picture.draw(TWO, broken(TWO, "down", "its cable is pulled out"))
    found = page.now(drawn)
    assert found["machines"] == ["node1", "node2"]
    assert len(found["colours"]) == 2
    assert found["nodes"][1] == [1, True, ["10.244.0.1"], None]
    kind, state, vni, ends = found["links"][0]
    assert (kind, state, vni) == ("vxlan", "down", 11)
    assert ends[0] == ["down", "its cable is pulled out", 1000, 10, 2000, 20]
    assert ends[1] == ["up", None, 1000, 10, 2000, 20]
    json.dumps(found)


def test_page_of_a_file_knows_nothing_of_ends() -> None:
    found = page.now(picture.draw(TWO))
    assert found["is_live"] is False
    assert found["links"][0] == ["cable", "unknown", None, [None, None]]
    assert found["nodes"][0] == [-1, False, [], None]


@pytest.mark.parametrize("state", [state for state in STATES if state != "up"])
def test_every_state_has_a_look(state: str) -> None:
    assert state in looks.STATES
    assert state in drawing(page.page(picture.draw(TWO)))["looks"]["states"]


def test_every_kind_and_role_has_a_look() -> None:
    assert set(picture.KINDS) == set(looks.STROKES)
    assert set(looks.SIGNS) == {"router", "switch", "host", "outside"}
