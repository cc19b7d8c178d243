"""The heads of requests and answers, and how an answer's body ends."""

from __future__ import annotations

import http.client
import io
from typing import Any

import pytest

from ratchet.http import Response, TooLargeError, content, exchange

LIMIT_BYTES = 4096


class Wire:
    """A socket that keeps what is sent and answers with what it was made with."""

    def __init__(self, answer: bytes) -> None:
        self.sent = b""
        self._answer = answer

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def settimeout(self, _: float) -> None:
        """A time-out is the real socket's."""

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._answer))

    def close(self) -> None:
        """Nothing is open."""


def ask(
    answer: bytes, host: str = "etcd", port: int = 2379, path: str = "/v2/keys", **more: Any
) -> tuple[Response, Wire, http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(host, port)
    wire = Wire(answer)
    connection.sock = wire
    method = more.pop("method", "GET")
    response = exchange(connection, method, path, timeout_s=5, limit_bytes=LIMIT_BYTES, **more)
    return response, wire, connection


def head(*fields: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "", "")).encode()


def test_fields_are_found_in_whatever_case_and_the_first_counts() -> None:
    response, _, _ = ask(head("X-Etcd-Index:  7 ", "x-etcd-index: 8", "Content-Length: 0"))
    assert response.headers.get("x-etcd-INDEX") == "7"
    assert response.headers.get("x-raft-index") is None
    assert response.headers.get("x-raft-index", 1) == 1


@pytest.mark.parametrize(
    "answer",
    [
        head("Content-Length: 5") + b"abcde",
        head("Transfer-Encoding: chunked") + b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
        head("Transfer-Encoding: Chunked", "Content-Length: 1") + b"5\r\nabcde\r\n0\r\n\r\n",
        head(status="100 Continue") + head("Content-Length: 5") + b"abcde",
        head("Link: </a>", status="103 Early Hints") + head("Content-Length: 5") + b"abcde",
    ],
)
def test_a_body_ends_where_its_head_says_and_the_connection_stays(answer: bytes) -> None:
    response, wire, connection = ask(answer)
    assert content(response, LIMIT_BYTES) == b"abcde"
    assert connection.sock is wire


@pytest.mark.parametrize(
    "answer",
    [
        head() + b"abcde",
        head("Content-Length: -5") + b"abcde",
        head("Content-Length: \u0665".encode("utf-8").decode("latin-1")) + b"abcde",
        head("Connection: Close", "Content-Length: 5") + b"abcde",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
    ],
)
def test_a_connection_that_ends_with_the_answer_is_closed(answer: bytes) -> None:
    response, _, connection = ask(answer)
    assert content(response, LIMIT_BYTES) == b"abcde"
    assert connection.sock is None


def test_an_answer_without_content_leaves_the_next_one_alone() -> None:
    response, _, _ = ask(head("Content-Length: 9", status="204 No Content") + head())
    assert content(response, LIMIT_BYTES) == b""


def test_a_body_that_is_cut_is_an_error() -> None:
    response, _, _ = ask(head("Content-Length: 9") + b"abc")
    with pytest.raises(http.client.IncompleteRead):
        content(response, LIMIT_BYTES)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        head(*(f"X-{number}: 1" for number in range(101))),
    ],
)
def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    with pytest.raises(http.client.HTTPException):
        ask(answer)


def test_a_head_counts_as_received() -> None:
    with pytest.raises(TooLargeError):
        ask(head("X: " + "a" * LIMIT_BYTES))
