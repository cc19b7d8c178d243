"""Files into trees: what is no YAML, what is too much, and where it stands."""

from __future__ import annotations

import time

import pytest

from ratchetctl.errors import TopologyError
from ratchetctl.topo import documents
from ratchetctl.topo.tree import Items, Scalar, Table, Tree


def at(tree: Tree, *path: str | int) -> Tree:
    for step in path:
        if isinstance(step, int):
            assert isinstance(tree, Items)
            tree = tree.values[step]
        else:
            assert isinstance(tree, Table)
            tree = tree.entries[step][1]
    return tree


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: 1\nb: [2\nc: 3\n", "f:3: not YAML"),
        ("a: 1\nb: 2\na: 3\n", "f:3: 'a' is given twice, first in line 1"),
        ("a: 1\nb: &x [*x]\n", "f:2: what is here contains itself"),
        ("? [1, 2]\n: 3\n", "f:1: a key must be a text"),
        ("a: 1\n<<: 3\n", "f:2: << takes a mapping"),
        ("a: \x07\n", "not YAML"),
        ("[" * 50_000, "not YAML"),
        ("- " * 8_000 + "1", "nested more than 100 deep"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_line(text: str, wanted: str) -> None:
    with pytest.raises(TopologyError, match=wanted.replace("[", r"\[")):
        documents.yaml_documents("f", text)


def test_aliases_that_multiply_cost_nothing() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for number in range(1, 60):
        inside = ", ".join([f"*a{number - 1}"] * 10)
        bomb += f"a{number}: &a{number} [{inside}]\n"
    start = time.process_time()
    documents.yaml_documents("f", bomb)
    assert time.process_time() - start < 2


def test_protobuf_text_in_all_its_spellings() -> None:
    tree = documents.protobuf_text(
        "f",
        """\
# a comment
name: 'one' "two"
nodes: {
  name: "a"
  config: { command: ["x", "y"]; command: "z" env { key: "K" value: "V" } }
  services: { key: 22 value: { inside: 22 } }
}
nodes < name: "b" vendor: HOST any { [type.x/y.Z] { w: {} w: {} } } >
""",
    )
    assert at(tree, "name") == Scalar("onetwo", at(tree, "name").where)
    assert [at(tree, "nodes", 0, "config", "command", n) for n in range(3)] == [
        Scalar(text, at(tree, "nodes", 0, "config", "command", n).where)
        for n, text in enumerate("xyz")
    ]
    value = at(tree, "nodes", 0, "config", "env", "K")
    assert isinstance(value, Scalar)
    assert value.text == "V"
    inside = at(tree, "nodes", 0, "services", "22", "inside")
    assert isinstance(inside, Scalar)
    assert (inside.text, inside.type, inside.where.line) == ("22", "int", 6)
    assert at(tree, "nodes", 1, "vendor").where.line == 8
    assert at(tree, "nodes", 1, "any", "type.x/y.Z", "w", 1).where.line == 8


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('name: "a\n', "f:1: not protobuf text"),
        ('name: "a"\nnodes {\n  name: "b"\n', "f:.*is missing"),
        ("a { [type.x/y.Z\n", "f:.*] is missing"),
        ('name "a"\n', "f:1: .*a colon is missing"),
        ("nodes {" * 200 + "}" * 200, "nested more than 100 deep"),
    ],
)
def test_what_is_no_protobuf_text_is_told(text: str, wanted: str) -> None:
    with pytest.raises(TopologyError, match=wanted.replace("]", r"\]")):
        documents.protobuf_text("f", text)
