"""A wait of two minutes that runs beside the other tests, on a cluster of its own.

It is apart from its test so that conftest.py can start it before the first one.
"""

from __future__ import annotations

import time

from tests.lab.cluster import Cluster
from tests.lab.runtime import PAIR, primary

DURATION_S = 120.0


class TwoMinutes:
    """Three pods that wait for far pods, of each kind that there is."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.node, self.far = cluster.nodes[:2]
        self.near = cluster.pod("near")
        self.across = cluster.pod("across")
        self.pair = cluster.pod("waiting-pair")
        near = primary("x1", "10.1.1.1", "late-near", "y1", "10.1.1.2")
        across = primary("x1", "10.1.2.1", "late-far", "y1", "10.1.2.2")
        self.node.add(self.near, near).succeeded()
        self.node.add(self.across, across).succeeded()
        self.node.add(self.pair, PAIR).succeeded()
        self._since = time.monotonic()

    def remaining_s(self) -> float:
        return max(0.0, self._since + DURATION_S - time.monotonic())
