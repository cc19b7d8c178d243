"""Files that are broken in every way: an error with a sentence, never a traceback, and soon."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from ratchetctl.errors import OperatorError
from ratchetctl.topo import check, dump, kinds, kinds_table, read, render
from ratchetctl.topo.findings import Findings
from ratchetctl.topo.routing.configured import configured

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))))
EXAMPLES = Path(ROOT, "examples", "topologies")
KINDS = "kinds.yml"  # no topology
FILES = sorted(
    one.name
    for one in EXAMPLES.iterdir()
    if one.suffix in (".yml", ".txt", ".graphml") and one.name != KINDS
)
ROUNDS = 150
# What a value is replaced by, and what is put in between.
PIECES = (
    "", "~", "[]", "{}", "[[]]", "{a: {}}", "1", "-1", "0x7f", "1e999", "true", '""', "'", '"',
    "*a", "&a", "<<: *a", "!!python/object:os.system x", "!!binary AAAA", "\t", "\x00", "é\u2028",
    "{{ x }}", "${X}", "a:b:c:d:e", "10.0.0.1/33", "::/0", "&#0;", "<a>", "]]>", "{ }", "[x.y] {",
    "- - -", "|", "9" * 500, "x" * 5000, "?", ": :", "---", "...",
)  # fmt: skip


def broken(text: str, chance: random.Random) -> str:
    """Return the text with a few of its lines or words gone, doubled, exchanged or replaced."""
    for _ in range(chance.randint(1, 4)):
        parts = text.splitlines(keepends=True) if chance.random() < 0.4 else text.split(" ")
        joint = "" if parts and parts[0].endswith("\n") else " "
        place = chance.randrange(len(parts))
        what = chance.randrange(4)
        if what == 0:
            del parts[place]
        elif what == 1:
            parts.insert(place, parts[chance.randrange(len(parts))])
        elif what == 2:
            parts[place] = chance.choice(PIECES) + ("\n" if parts[place].endswith("\n") else "")
        else:
            other = chance.randrange(len(parts))
            parts[place], parts[other] = parts[other], parts[place]
        text = joint.join(parts)
        if not text:
            return text
    return text


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "KINDS", dict(kinds.KINDS))
    kinds.extend(str(EXAMPLES / KINDS))


def test_a_broken_table_of_kinds_is_read_or_refused() -> None:
    whole = (EXAMPLES / KINDS).read_text(encoding="utf-8") + kinds_table.TABLE
    chance = random.Random(KINDS)
    refused = 0
    for _ in range(ROUNDS):
        text = broken(whole, chance)
        try:
            for kind in kinds.parse("kinds.yml", text, {}).values():
                assert all(rule.apply("ge-0/0") != "" for rule in kind.renames)
        except OperatorError as error:
            refused += 1
            assert str(error), text
        except Exception as error:
            raise AssertionError(f"{error!r} for\n{text}") from error
    assert refused


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("leave_out", [False, True])
def test_a_broken_file_is_read_or_refused(tmp_path: Path, name: str, leave_out: bool) -> None:
    whole = (EXAMPLES / name).read_text(encoding="utf-8")
    try_broken(whole, tmp_path / name, leave_out)


@pytest.mark.parametrize("name", FILES)
def test_a_broken_manifest_is_read_or_refused(tmp_path: Path, name: str) -> None:
    found = configured(read.read(str(EXAMPLES / name), Findings()))
    try_broken("".join(dump.documents(render.objects(found))), tmp_path / "pods.yaml", False)


def try_broken(whole: str, path: Path, leave_out: bool) -> None:
    chance = random.Random(path.name)
    refused = 0
    for _ in range(ROUNDS):
        text = broken(whole, chance)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        start = time.process_time()
        try:
            found = configured(read.read(str(path), Findings(leave_out=leave_out)))
            findings = Findings()
            check.check(found, findings)
            assert "".join(dump.documents(render.objects(found)))
        except OperatorError as error:
            refused += 1
            assert str(error), text
        except Exception as error:
            raise AssertionError(f"{error!r} for\n{text}") from error
        assert time.process_time() - start < 2, text
    assert refused > ROUNDS // 10


@pytest.mark.parametrize("form", read.FORMATS)
@pytest.mark.parametrize("text", ["", "x", "[]", "{}", "a: {b: [c]}", "<a/>", "\x00", "- {}", "1"])
def test_any_file_in_any_format_is_refused_by_a_sentence(
    tmp_path: Path, form: str, text: str
) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(OperatorError, match=r".{10}"):
        read.read(str(path), Findings(), form)
