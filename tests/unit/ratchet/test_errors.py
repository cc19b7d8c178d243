from __future__ import annotations

import pytest

from ratchet import errors
from ratchet.errors import ConfigError, LabelError, RatchetError, shown


def test_every_error_of_ours_is_in_the_table_with_its_code() -> None:
    table = errors.__doc__ or ""
    for name in errors.__all__:
        kind = getattr(errors, name)
        if issubclass(kind, RatchetError):
            line = next(line for line in table.splitlines() if f" {name} " in line)
            assert f" {kind.code} " in line


def test_no_two_errors_share_a_code() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__]
    codes = [kind.code for kind in kinds if issubclass(kind, RatchetError)]
    assert len(codes) == len(set(codes))


def test_an_error_says_what_it_is_about() -> None:
    exc = errors.PodUnknownError("default/{pod}", "connection refused")
    assert (exc.code, exc.details) == (11, "connection refused")
    assert exc.msg == "the pod's labels cannot be read now; try again later: default/{pod}"
    assert str(exc) == f"{exc.msg} (connection refused)"


def test_a_label_error_names_label_value_and_what_is_allowed() -> None:
    assert (
        "ratchet.local_ip is 'x'; allowed is an address"
        in LabelError("ratchet.local_ip", "x", "an address").msg
    )
    assert "ratchet.pair_name is missing" in LabelError("ratchet.pair_name", None, "a name").msg


def test_a_config_error_is_the_specifications_code() -> None:
    assert ConfigError("mtu", 1, "more").code == 7


@pytest.mark.parametrize("value", ["a\nb", "x" * 10_000, "\x1b[31m", "\ud800", {"a": "x" * 1000}])
def test_values_are_shown_on_one_short_line(value: object) -> None:
    text = shown(value)
    assert len(text) <= 120
    assert text.isprintable()
