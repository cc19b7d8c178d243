"""Which format a file is in, and its topology."""

from __future__ import annotations

import re
from collections.abc import Callable

from ratchetctl.errors import TopologyError
from ratchetctl.topo import documents
from ratchetctl.topo.findings import Findings
from ratchetctl.topo.model import Topology
from ratchetctl.topo.readers import containerlab, graphml, k8s_topo, kne, manifests, meshnet
from ratchetctl.topo.tree import Table, Tree

FORMATS = ("containerlab", "k8s-topo", "meshnet", "kne", "graphml", "manifest")
TEXT_PROTO = (".pb.txt", ".pbtxt", ".textproto", ".prototxt", ".textpb", ".txtpb")
# How a message begins, in protobuf's text format and in no YAML of ours: nodes: {
_TEXT_PROTO = re.compile(r"^(?:nodes|links)\s*:?\s*[{<]", re.MULTILINE)


def read(path: str, findings: Findings, form: str | None = None) -> Topology:
    """Read a topology, in the format that its content shows unless one is given.

    Raises TopologyError, OperatorError for unreadable files.
    """
    name, text = documents.read_text(path)
    if form == "graphml" or (form is None and graphml.matches(name, text)):
        return graphml.read(name, text, findings)
    trees: list[Tree]
    if form in (None, "kne") and (name.endswith(TEXT_PROTO) or _TEXT_PROTO.search(text)):
        return kne.read(documents.protobuf_text(name, text), findings)
    trees = documents.yaml_documents(name, text)
    if not trees:
        raise TopologyError(f"{name}: nothing in this file")
    if form is None:
        form = _form(trees)
    if form in ("meshnet", "manifest"):
        reader = meshnet.read if form == "meshnet" else manifests.read
        return reader(trees, findings)
    if len(trees) > 1:
        raise TopologyError(f"{trees[1].where}: a second document; a topology has one")
    single: dict[str, Callable[[Tree, Findings], Topology]] = {
        "containerlab": containerlab.read,
        "k8s-topo": k8s_topo.read,
        "kne": kne.read,
    }
    if form not in single:
        tree = trees[0]
        keys = ", ".join(tree.entries) if isinstance(tree, Table) else "no mapping"
        raise TopologyError(
            f"{tree.where}: no format that is known (its keys are {keys[:80]}); a topology of"
            " containerlab has topology:, one of k8s-topo links: with endpoints:, one of kne"
            " nodes: and links: with a_node:; or say it with --format"
        )
    return single[form](trees[0], findings)


def _form(trees: list[Tree]) -> str | None:
    if meshnet.matches(trees):
        return "meshnet"
    if manifests.matches(trees):
        return "manifest"
    for form, module in (("containerlab", containerlab), ("k8s-topo", k8s_topo), ("kne", kne)):
        if module.matches(trees[0]):
            return form
    return None
