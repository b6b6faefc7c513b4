"""Broken files for fuzzing: valid ones of which parts were replaced, and bytes that mean nothing."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from vtk_cli.errors import VtkError

HANGS_S = 20
"""An example that takes so long, on a busy machine also, hangs."""
LONGEST_LINE = 5000
"""Characters of a refusal."""
_DEEP = "@deep@"

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, 1e-320, 1e308, -1e308, 2**31, 2**32, 2**63, 10**9, 10**400),
    *(float("nan"), float("inf"), -float("inf")),
    *(
        "",
        " ",
        "0",
        "1",
        "-1",
        "1e400",
        "nan",
        "../up.png",
        "/etc/hostname",
        "a\\b.png",
        "a\0b.png",
        "\ud800",
        "\x1b[2J",
    ),
    *("n" * 300, "9" * 5000, "http://[", "|none~0|", "=1+1", "<script>", "\n", "a.png"),
    *(
        [],
        {},
        [[]],
        [None],
        [1],
        [1, 2],
        [1, 2, 3, 4],
        [1e308] * 4,
        [-1] * 6,
        ["1"] * 4,
        [{}],
        {"": None},
        {"counts": "P0"},
    ),
)
WORDS: tuple[bytes, ...] = (
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\r",
        b"\n",
        b"\n\n",
        b"\t",
        b" " * 500,
        b'"',
        b"'",
    ),
    *(
        b",",
        b";",
        b"|",
        b":",
        b"=",
        b"-",
        b"/",
        b"<",
        b">",
        b"&",
        b"#",
        b"!!",
        b"*a",
        b"&a ",
        b"%",
        b"[",
        b"]",
        b"{",
        b"}",
    ),
    *(b"NaN", b"inf", b"-1", b"0", b"1e308", b"1e-400", b"9" * 20, b"9" * 5000, b"null", b"true", b"../" * 3, b"/etc/"),
    *(b"[" * 900, b"[" * 100_000, b'{"a":' * 5000, b"<a>" * 3000, b"x" * 200_000, b"\\ud800", b"<!DOCTYPE a>", b"&b;"),
    *(b"!!int ''", b"!!bool x", b"!!timestamp x", b"<<: *a", b"!!python/object/apply:os.system [x]", b"\xe2\x80\xa8"),
)

fuzzed = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
"""The same examples every time; `tried` is what stops those that hang."""


def tried(read: Callable[[], object]) -> bool:
    """Whether `read` gives a value; False where it refuses with a line. Anything else is raised."""
    with _stopped():
        try:
            read()
        except VtkError as error:
            told = str(error)
        else:
            return True
    assert told.strip()
    assert "\n" not in told
    assert len(told) <= LONGEST_LINE
    return False


def broken(valid: bytes) -> st.SearchStrategy[bytes]:
    """The bytes of a file that was valid, edited; or any."""
    edited = st.lists(_edit(valid), min_size=1, max_size=3).map(lambda edits: _applied(valid, edits))
    return st.one_of(edited, st.binary(max_size=64))


def broken_json(valid: Any) -> st.SearchStrategy[bytes]:
    """A JSON document with up to three of its values replaced, removed or doubled; or its bytes edited."""
    changes = st.lists(st.tuples(st.integers(0, 10**6), _change), min_size=1, max_size=3)
    depth = st.integers(880, 990)  # brackets in brackets, about as many as Python's JSON reads
    changed = st.builds(lambda edits, deep: _deepened(_json(_changed(valid, edits)), deep), changes, depth)
    return st.one_of(changed, changed, broken(_json(valid)))


def _deepened(content: bytes, depth: int) -> bytes:
    return content.replace(f'"{_DEEP}"'.encode(), b"[" * depth + b"]" * depth)


_change = st.one_of(
    st.sampled_from(VALUES).map(lambda value: ("put", value)),
    st.sampled_from((("remove", None), ("double", None), ("deep", None))),
    st.one_of(st.integers(), st.floats(), st.text(max_size=8)).map(lambda value: ("put", value)),
)


def _edit(valid: bytes) -> st.SearchStrategy[tuple[str, int, int, bytes]]:
    place = st.integers(0, max(len(valid), 1))
    word = st.one_of(st.sampled_from(WORDS), st.binary(min_size=1, max_size=4))
    kind = st.sampled_from(("put", "put", "instead", "cut", "remove", "double"))
    return st.tuples(kind, place, st.integers(1, 12), word)


def _applied(valid: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    content = valid
    for kind, place, length, word in edits:
        before, there, after = content[:place], content[place : place + length], content[place + length :]
        content = {
            "put": before + word + there + after,
            "instead": before + word + after,
            "cut": before,
            "remove": before + after,
            "double": before + there + there + after,
        }[kind]
    return content


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything inside."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def _changed(valid: Any, edits: list[tuple[int, tuple[str, Any]]]) -> Any:
    top = [deepcopy(valid)]
    for number, (kind, value) in edits:
        places = list(_places(top))
        if not places:
            break
        container, key = places[number % len(places)]
        if kind == "put":
            container[key] = deepcopy(value)
        elif kind == "deep":
            container[key] = _DEEP
        elif kind == "remove":
            del container[key]
        elif isinstance(container, list):
            container.insert(key, deepcopy(container[key]))
    return top[0] if top else None


@contextmanager
def _stopped() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"no end after {HANGS_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    outer = signal.alarm(HANGS_S)
    try:
        yield
    finally:
        signal.alarm(outer)
        signal.signal(signal.SIGALRM, before)
