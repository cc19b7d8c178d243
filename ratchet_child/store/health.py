"""Whether the store answers, as whoever watches it has found. Nothing is asked of it in here."""

from __future__ import annotations

from ratchet_child.model.clock import Clock


class Health:
    """Written by the one thread that watches the store. Readers need no lock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.error: str | None = "not asked yet"
        self.since = clock.time()  # when it was first away, or back, seconds since the epoch
        self.is_away = False

    def answered(self) -> None:
        """Note that the store has answered."""
        if self.error is not None:
            self.since = self._clock.time()
        self.error = None
        self.is_away = False

    def failed(self, error: str) -> None:
        """Note that the store has not answered."""
        if not self.is_away:
            self.since = self._clock.time()
        self.error = error
        self.is_away = True
