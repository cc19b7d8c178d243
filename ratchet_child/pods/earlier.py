"""What this node had published in the store before this process started.

A child that starts does not know what an earlier one of this node had written, and writes nothing
before it does: a container that was published already keeps its place in etcd's order, by which the
most recent container of a name is found.
"""

from __future__ import annotations

from ratchet.errors import StoreError
from ratchet_child.model.keys import PodKey, Published

Claim = tuple[str, int]  # a container, and etcd's index of when the node began to publish it


class PublishedEarlier:
    """What earlier processes have published, as the thread that watches the store learns it.

    Claims are learnt and dropped under the registry's lock, and read without it.
    """

    def __init__(self) -> None:
        self._claims: dict[PodKey, Claim] | None = None

    @property
    def is_known(self) -> bool:
        """Whether the store has ever told this process what its node had published."""
        return self._claims is not None

    def require(self, why_not: str | None) -> None:
        """Raise StoreError until it is known; `why_not` says what the store's trouble is."""
        if self._claims is None:
            raise StoreError("read what this node has published", why_not or "")

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
        """Return the container for which this node had begun to publish a pod."""
        return None if self._claims is None else self._claims.get(key)

    def drop(self, key: PodKey) -> None:
        """Forget a pod that has another record now: this process has published that one."""
        if self._claims is not None:
            self._claims.pop(key, None)
