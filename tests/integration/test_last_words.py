"""A failure is reported with the cluster as it was, not as it is when all has been removed."""

from __future__ import annotations

import pytest

from tests.lab.cluster import Cluster
from tests.lab.runtime import PAIR, Node

pytestmark = [pytest.mark.root, pytest.mark.nodes("used")]


def test_a_failure_after_the_end_of_a_test_is_told_with_the_child_that_was_there(
    cluster: Cluster, node: Node
) -> None:
    """A fixture that fails while it cleans up is reported when the cluster has been swept."""
    node.add(cluster.pod("a"), PAIR).succeeded()
    child = node.wait_child()
    assert cluster.problems_after_test() == []
    assert cluster.end_test() == []
    assert node.children() == []

    said = dict(cluster.last_words)
    title = f"node 1: its child is [{child}], its log"
    assert title in said
    assert 'msg="withdrawn" pod=a' in said[title]
    cluster.end_test()  # as the fixture does; it finds nothing to tell of
    assert dict(cluster.last_words) == said
