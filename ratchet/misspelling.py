"""A key of the network configuration that is plainly a misspelt key of ours.

Apart from the configuration because it costs as much as a whole pass-through, and hardly any
configuration has a key that nobody knows.
"""

from __future__ import annotations

from difflib import get_close_matches

from ratchet.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def refuse(unknown: Iterable[str], ours: Iterable[str]) -> None:
    """Raise ConfigError for the first key that is nearly one of ours, naming the right one."""
    squeezed = {key.replace("_", ""): key for key in ours}
    for key in unknown:
        wanted = key.lower().replace("_", "").replace("-", "")
        close = get_close_matches(wanted, squeezed, n=1, cutoff=0.85)
        if close:
            raise ConfigError.misspelt(key, squeezed[close[0]])
