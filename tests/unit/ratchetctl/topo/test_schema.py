"""docs/schema/topology.schema.json: it takes what the reader takes, and refuses what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from ratchetctl.cli import cli
from ratchetctl.errors import TopologyError
from ratchetctl.topo.kinds import KINDS
from ratchetctl.topo.readers import containerlab
from tests.unit.ratchetctl.topo.reading import topology

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__)))))
EXAMPLES = os.path.join(ROOT, "examples", "topologies")
SCHEMA = json.loads(
    Path(ROOT, "docs", "schema", "topology.schema.json").read_text(encoding="utf-8")
)


def is_valid(text: str) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(yaml.safe_load(text))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    "name", sorted(one for one in os.listdir(EXAMPLES) if one.endswith(".clab.yml"))
)
def test_examples_are_valid(name: str) -> None:
    assert is_valid(Path(EXAMPLES, name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "command",
    [
        "random 12 4 --seed 3 --loopbacks both --addresses ipv6",
        "random 5 1 --seed 3 --ospf",
        "clos 2 2 1 --routing bgp",
        "clos 2 3",
        "fat-tree 4 --addresses none",
        "ring 5 --kind nokia_srlinux",
        "mesh 4 --prefix-len 30",
        "grid 2 3 --image x",
        f"import {EXAMPLES}/kne-2.yml",
        f"import {EXAMPLES}/meshnet-5.yml",
        f"import {EXAMPLES}/zoo.graphml --loopbacks ipv4",
    ],
)
def test_what_is_written_is_valid(command: str) -> None:
    done = CliRunner().invoke(cli, ["topo", *command.split()])
    assert done.exit_code == 0, done.output
    assert is_valid(done.stdout)


WELL = {
    "name": "lab",
    "topology": {
        "nodes": {"a": {"image": "x"}, "b": {"image": "x"}},
        "links": [{"endpoints": ["a:eth1", "b:eth1"], "mtu": 1400}],
    },
}


def test_reader_and_schema_agree(tmp_path: Path) -> None:
    topology(tmp_path, json.dumps(WELL))
    assert is_valid(json.dumps(WELL))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), None),
        (("nam",), "x"),
        (("topology", "nodse"), {}),
        (("topology", "nodes", "a", "imag"), "x"),
        (("topology", "nodes", "a", "binds"), ["nothing"]),
        (("topology", "nodes", "a", "exec"), "no list"),
        (("topology", "links", 0, "endpoints"), ["a:eth1"]),
        (("topology", "links", 0, "endpoints"), ["a:eth1", "b"]),
        (("topology", "links", 0, "type"), "macvlan"),
        (("topology", "links", 0, "type"), "dummy"),
        (("topology", "links", 0, "labels"), {"ratchet.dealy": "1ms"}),
        (("topology", "links", 0, "mtuu"), 1),
        (("topology", "links", 0, "mtu"), "much"),
        (("topology", "links", 0, "endpoints"), [{"node": "a"}, "b:eth1"]),
    ],
)
def test_what_the_reader_refuses_the_schema_refuses(
    tmp_path: Path, path: tuple[str | int, ...], value: object
) -> None:
    wrong = json.loads(json.dumps(WELL))
    inner = wrong
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(TopologyError):
        topology(tmp_path, json.dumps(wrong))
    assert not is_valid(json.dumps(wrong))


def test_every_key_and_kind_that_is_known_is_in_the_schema() -> None:
    node = SCHEMA["$defs"]["node"]["properties"]
    assert set(containerlab.NODE_KEYS) <= set(node)
    assert set(containerlab.TOP_KEYS) <= set(SCHEMA["properties"])
    assert set(node["kind"]["anyOf"][0]["enum"]) == set(KINDS)
