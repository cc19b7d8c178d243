"""The packed queueing disciplines say what they should: read with pyroute2's descriptions of them.

Attributes that pyroute2 does not know are read by their number in linux/pkt_sched.h. A machine need
not have netem, so its messages are checked here.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from ratchet.impairment import Impairment
from ratchet_child.kernel import qdisc
from ratchet_child.kernel.rtnetlink import attributes

HEADER_BYTES = 16
ROOT = 0xFFFFFFFF


def read(body: bytes) -> Any:
    length = HEADER_BYTES + len(body)
    message = tcmsg(length.to_bytes(4, "little") + bytes(HEADER_BYTES - 4) + body)
    message.decode()
    return message


def numbers(body: bytes, skip: int = 0) -> dict[int, int]:
    """Return a message's options by their number; `skip` bytes are a struct before them."""
    options = attributes(body, 20)[2]
    return {
        kind: int.from_bytes(data, "little") for kind, data in attributes(options, skip).items()
    }


def test_a_rate_is_a_token_bucket_that_holds_a_frame() -> None:
    (part,) = qdisc.parts(7, Impairment(rate_bits=80_000), 9_000)
    found = read(part.body)
    assert (found["index"], found["parent"], found["handle"]) == (7, ROOT, 0x72610000)
    assert found.get_attr("TCA_KIND") == "tbf"
    options = found.get_attr("TCA_OPTIONS")
    parameters = options.get_attr("TCA_TBF_PARMS")
    assert parameters["rate"] == 10_000
    burst = numbers(part.body)[6]
    assert burst >= 9_000 + 14
    assert parameters["limit"] > burst


def test_a_rate_above_34_gbit_is_told_in_64_bits() -> None:
    wanted = Impairment(rate_bits=400 * 10**9)
    (part,) = qdisc.parts(7, wanted, 1_500)
    options = read(part.body).get_attr("TCA_OPTIONS")
    assert numbers(part.body)[4] == 50 * 10**9
    assert options.get_attr("TCA_TBF_PARMS")["rate"] == 0xFFFFFFFF
    assert qdisc.read([bytes(HEADER_BYTES) + part.body]) == {7: wanted}


def test_delay_and_loss_without_a_rate_are_the_root() -> None:
    wanted = Impairment(delay_us=10_000, jitter_us=2_000, loss_ppm=250_000, corrupt_ppm=500_000)
    (part,) = qdisc.parts(7, wanted, 1_500)
    found = read(part.body)
    assert (found["parent"], found["handle"]) == (ROOT, 0x72610000)
    assert found.get_attr("TCA_KIND") == "netem"
    options = found.get_attr("TCA_OPTIONS")
    assert options["loss"] == round(0.25 * 0xFFFFFFFF)
    assert options["limit"] >= 1_000 + 10**9 * 0.012 / 8 / 1_500
    more = numbers(part.body, skip=24)
    assert (more[10], more[11]) == (10_000_000, 2_000_000)  # nanoseconds
    assert options.get_attr("TCA_NETEM_CORRUPT")["prob_corrupt"] == round(0.5 * 0xFFFFFFFF)


def test_what_is_late_as_well_as_slow_is_late_below_the_rate() -> None:
    slow, late = qdisc.parts(7, Impairment(rate_bits=8_000_000, delay_us=1), 1_500)
    assert (slow.kind, late.kind) == ("tbf", "netem")
    assert (slow.does, late.does) == (Impairment(rate_bits=8_000_000), Impairment(delay_us=1))
    found = read(late.body)
    assert (found["parent"], found["handle"]) == (0x72610001, 0x72620000)


def test_only_ours_is_removed() -> None:
    found = read(qdisc.ours(7))
    assert (found["index"], found["parent"], found["handle"]) == (7, ROOT, 0x72610000)


@given(
    st.none() | st.integers(1_000, 125 * 10**9).map(lambda one: one * 8),
    st.none() | st.integers(1, 60_000_000),
    st.none() | st.integers(1, 60_000_000),
    st.none() | st.integers(1, 1_000_000),
    st.none() | st.integers(1, 1_000_000),
)
def test_an_impairment_is_found_as_it_was_made(
    rate: int | None, delay: int | None, jitter: int | None, loss: int | None, corrupt: int | None
) -> None:
    wanted = Impairment(rate, delay, jitter, loss, corrupt)
    made = [bytes(HEADER_BYTES) + part.body for part in qdisc.parts(7, wanted, 1_500)]
    assert qdisc.read(made) == ({} if wanted == Impairment() else {7: wanted})


@pytest.mark.parametrize("kind", ["pfifo", "tbf"])
def test_a_discipline_of_the_pods_own_is_no_impairment(kind: str) -> None:
    message = tcmsg()
    message["index"], message["handle"], message["parent"] = 7, 0x10000, ROOT
    message["attrs"] = [["TCA_KIND", kind]]
    message.encode()
    assert qdisc.read([bytes(message.data)]) == {}
