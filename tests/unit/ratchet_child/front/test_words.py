"""The bytes between front and child. That front.c means the same is for the integration tests."""

from __future__ import annotations

import struct

import pytest

from ratchet_child.front import words
from ratchet_child.front.words import Flag, Kind, NonsenseError, Policy, Reply, Waiting

ENVIRONMENT = b"CNI_COMMAND=ADD\0EMPTY=\0A=1=2\0A=second\0nothing\0BYTES=\xff\0"


def received(environment: bytes = ENVIRONMENT, text: bytes = b"{}") -> bytes:
    head = struct.pack("=4I2Q", words.MAGIC, len(environment), len(text), 0, 7, 8)
    return head + environment + text


def test_hello_is_read_as_python_reads_its_own_environment() -> None:
    hello = words.hello(received())
    assert hello.environ == {
        "CNI_COMMAND": "ADD",
        "EMPTY": "",
        "A": "1=2",
        "BYTES": "\udcff",
    }
    assert (hello.input, hello.net_namespace, hello.mount_namespace) == (b"{}", 7, 8)


def test_hello_says_how_long_it_is() -> None:
    whole = received()
    assert words.hello_bytes(whole[:31]) is None
    assert words.hello_bytes(whole[:32]) == len(whole)


@pytest.mark.parametrize("head", [(1, 1, 1), (words.MAGIC, 2**32 - 1, 1), (words.MAGIC, 1, 2**31)])
def test_nonsense_is_no_hello(head: tuple[int, int, int]) -> None:
    with pytest.raises(NonsenseError):
        words.hello_bytes(struct.pack("=4I2Q", *head, 0, 7, 8))


def test_word_says_how_the_next_one_is_waited_for() -> None:
    waiting = Waiting(0.25, Policy.BE_PARENT, Policy.LAST_WORDS)
    data = words.word(Kind.HOLD, b"last", waiting, exit_code=1)
    assert struct.unpack("=9I", data[:36]) == (words.MAGIC, 4, 4, 1, 250, 0, 1, 0, 0)
    assert data[36:] == b"last"


@pytest.mark.parametrize(("run_s", "run_ms"), [(None, 0), (0.0, 1), (1.5, 1500)])
def test_time_that_a_program_has_is_never_taken_for_no_limit(
    run_s: float | None, run_ms: int
) -> None:
    data = words.word(Kind.RUN, b"", Waiting(1), run_s=run_s, most_output_bytes=9)
    assert struct.unpack("=9I", data)[7:] == (run_ms, 9)


def test_program_keeps_the_bytes_of_its_environment() -> None:
    environ = words.hello(received()).environ
    assert words.program("/p", environ) == b"/p\0CNI_COMMAND=ADD\0EMPTY=\0A=1=2\0BYTES=\xff\0"


def test_reply_is_read_and_nonsense_is_none() -> None:
    told = struct.pack("=5I", words.MAGIC, 2, 256, 1, 10)
    assert words.reply(told) == Reply(2, 256, Flag.OUT_OF_TIME, 10)
    with pytest.raises(NonsenseError):
        words.reply(b"?" * words.REPLY_BYTES)
