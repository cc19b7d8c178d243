"""The packed messages are those that nft(8) 1.0.6 sends, as strace(1) shows them."""

from __future__ import annotations

from ratchet_child.kernel import nftables
from ratchet_child.kernel.nftables import Element

INET = "01000000"
TABLE = "0c00010072617463686574 00"


def packed(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


def test_chain_hooks_into_what_leaves() -> None:
    kind, _, body = nftables.add_chain("ratchet", "sends", nftables.LOCAL_OUT, -300)
    hook = "14000480 0800010000000003 08000200fffffed4"
    assert kind == 3
    assert body == packed(
        f"{INET} {TABLE} 0a00030073656e64730000 00 {hook}0b00070066696c746572 0000 0800050000000001"
    )


def test_element_has_its_key_and_comment() -> None:
    key = packed("12b50000 00000b00 0a000001")
    ((kind, _, body),) = nftables.add_elements("ratchet", "links4", [Element(key, "abc")])
    element = "24000180 14000180 10000100 12b5000000000b000a000001 0a000600 000461626300 0000"
    assert kind == 12
    assert body == packed(f"{INET} {TABLE} 0b0002006c696e6b733400 00 28000380 {element}")


def test_many_elements_go_in_several_messages() -> None:
    elements = [Element(number.to_bytes(8, "big"), "x" * 120) for number in range(1000)]
    changes = nftables.add_elements("ratchet", "vnis", elements)
    assert len(changes) == 3
    assert all(len(body) < 1 << 16 for _, _, body in changes)
    assert nftables.add_elements("ratchet", "vnis", []) == []


def test_expressions_are_nfts() -> None:
    assert nftables.load_meta(nftables.META_L4PROTO) == packed(
        "09000100 6d657461 00000000 14000280 0800020000000010 0800010000000001"
    )
    assert nftables.compare(nftables.GREATER_OR_EQUAL, b"\xf0\x00") == packed(
        "08000100 636d7000 20000280 0800010000000001 0800020000000005 0c000380 06000100 f0000000"
    )
    assert nftables.load_payload(nftables.TRANSPORT, 12, 3, register=9) == packed(
        "0c000100 7061796c6f616400 24000280"
        "0800010000000009 0800020000000002 080003000000000c 0800040000000003"
    )
