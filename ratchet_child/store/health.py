"""Health with etcd: whether it answers, and what this node had published there earlier.

A child that starts does not know what an earlier one of this node had written, and writes nothing
before it does: a container that was published already keeps its place in etcd's order, by which the
newest of a name is told. Nothing is asked of etcd in here; who watches it says what it has heard.
"""

from __future__ import annotations

import time

from ratchet.errors import StoreError
from ratchet_child.model.keys import PodKey, Published

Claim = tuple[str, int]  # a container, and etcd's index of when the node began to publish it


class Health:
    """What this process knows of etcd itself.

    Everything is written by the one thread that watches etcd, but for claims that are dropped: both
    the learning and the dropping of these happen under the registry's lock. Readers need no lock.
    """

    def __init__(self) -> None:
        self.error: str | None = "not asked yet"
        self.since = time.time()  # when it was first away, or back, seconds since the epoch
        self.is_away = False
        self._claims: dict[PodKey, Claim] | None = None

    def answered(self) -> None:
        """etcd has answered."""
        if self.error is not None:
            self.since = time.time()
        self.error = None
        self.is_away = False

    def failed(self, error: str) -> None:
        """etcd has not answered."""
        if not self.is_away:
            self.since = time.time()
        self.error = error
        self.is_away = True

    @property
    def is_known(self) -> bool:
        """Whether etcd has ever told this process what its node had published."""
        return self._claims is not None

    def require(self) -> None:
        """*Raises* StoreError until it is known what this node had published earlier."""
        if self._claims is None:
            raise StoreError("read what this node has published", self.error or "")

    def learn(
        self, published: dict[PodKey, tuple[Published, int]], moved: dict[PodKey, Claim]
    ) -> None:
        """Take up what the node had published; `moved` is what it had under other addresses."""
        claims = {key: (one.container, index) for key, (one, index) in published.items()}
        # Another address makes no container a newer one.
        for key, (container, index) in moved.items():
            claim = claims.get(key, (container, index))
            if claim[0] == container:
                claims[key] = container, min(index, claim[1])
        self._claims = claims

    def claim(self, key: PodKey) -> Claim | None:
        """The container for which this node had begun to publish a pod before this process."""
        return None if self._claims is None else self._claims.get(key)

    def drop_claim(self, key: PodKey) -> None:
        """The pod's record is another one now: what it is published for is this process's doing."""
        if self._claims is not None:
            self._claims.pop(key, None)
