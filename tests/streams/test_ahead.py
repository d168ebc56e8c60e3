"""Work ahead: the same items, the same errors, and no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from streams.offline.ahead import ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "ahead"]


def test_the_items_come_in_their_order() -> None:
    assert list(ahead(range(100), most=3)) == list(range(100))
    assert threads() == []


def test_they_are_made_in_a_thread_of_their_own_and_not_all_at_once() -> None:
    made: list[int] = []
    makers: set[int] = set()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            makers.add(threading.get_ident())
            yield number

    found = ahead(items(), most=2)
    assert next(found) == 0
    assert len(made) <= 1 + 2 + 2  # used, waiting, and in the making
    assert makers == {next(iter(makers))} != {threading.get_ident()}
    found.close()  # type: ignore[attr-defined]
    assert len(made) < 100
    assert threads() == []


def test_an_error_comes_at_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(KeyError, match="broken"):
        next(found)
    assert threads() == []


def test_an_error_of_the_user_ends_the_thread() -> None:
    def use() -> None:
        for number in ahead(range(1_000_000), most=1):
            if number == 3:
                raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        use()
    assert threads() == []
