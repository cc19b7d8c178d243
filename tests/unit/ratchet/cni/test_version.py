from __future__ import annotations

import pytest

from ratchet.cni import version


def test_versions_are_in_order() -> None:
    for number, later in enumerate(version.SUPPORTED):
        for earlier in version.SUPPORTED[: number + 1]:
            assert version.at_least(later, earlier)
        for latest in version.SUPPORTED[number + 1 :]:
            assert not version.at_least(later, latest)


@pytest.mark.parametrize("operation", ["ADD", "DEL", "VERSION"])
def test_the_oldest_operations_are_in_every_version(operation: str) -> None:
    assert all(version.allows(each, operation) for each in ("", *version.SUPPORTED))


def test_no_version_is_010() -> None:
    assert all(version.same(*pair) for pair in [(None, ""), ("", "0.1.0"), ("1.0.0", "1.0.0")])
    assert not version.same(None, "0.2.0")


def test_a_delegate_of_a_version_that_we_do_not_know_is_not_kept_from_anything() -> None:
    assert version.allows("2.0.0", "GC")
