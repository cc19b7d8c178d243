"""What has become of starting something in a pod."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Started:
    """What it was, what runs of it, and (program, reason) for what does not."""

    what: str
    runs: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def fail(self, program: str, why: str) -> None:
        self.failed.append((program, why))
