"""Keys: ids that can't be confused, and a hash that is the published one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.columns import Column, Constant, Nullable, PackedBytes, Symbols
from transforms.keys import key_hashes, key_ids


def one(*columns: Column) -> bytes:
    """The id of the first row."""
    return key_ids([str(i) for i in range(len(columns))], list(columns))[0]


def text(*values: str) -> PackedBytes:
    return PackedBytes.pack([v.encode() for v in values])


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("", (0x0000000000000000, 0x0000000000000000)),
        ("hello", (0xCBD8A7B341BD9B02, 0x5B1E906A48AE1D19)),
        ("The quick brown fox jumps over the lazy dog", (0xE34BBC7BBC071B6C, 0x7A433CA9C49A9347)),
    ],
)
def test_the_hash_is_the_published_murmur3(words: str, wanted: tuple[int, int]) -> None:
    assert tuple(key_hashes(text(words))[0].tolist()) == wanted


def test_the_hash_passes_the_verification_of_its_authors() -> None:
    # SMHasher's check: keys 0, 01, 012 ... of every length to 255 with seed 256 - length, then the hash of all hashes.
    every = b"".join(
        key_hashes(PackedBytes.pack([bytes(range(length))]), seed=256 - length).astype("<u8").tobytes() for length in range(256)
    )
    assert key_hashes(PackedBytes.pack([every])).astype("<u8").tobytes()[:4] == (0x6384BA69).to_bytes(4, "little")


def test_a_string_is_not_the_integer_of_the_same_digits() -> None:
    assert one(text("12345678")) != one(np.array([12345678]))
    assert one(text("\x01\0\0\0\0\0\0\0")) != one(np.array([1]))


@given(st.lists(st.text(max_size=4), min_size=2, max_size=2), st.lists(st.text(max_size=4), min_size=2, max_size=2))
def test_composites_are_equal_only_if_their_parts_are(left: list[str], right: list[str]) -> None:
    same = one(*(text(part) for part in left)) == one(*(text(part) for part in right))
    assert same == (left == right)


def test_one_value_has_one_id_however_its_column_is_kept() -> None:
    valid = np.array([True])
    ids = {
        one(text("EUR")),
        one(Symbols(np.array([1], np.int32), ("USD", "EUR"))),
        one(Constant(b"EUR", 1)),
        one(Nullable(text("EUR"), valid)),
        one(text("USD", "EUR").take(np.array([1]))),
    }
    assert len(ids) == 1
    numbers = {one(np.array([7], np.int32)), one(np.array([7])), one(Constant(7, 1)), one(Nullable(np.array([7]), valid))}
    assert len(numbers) == 1
    assert one(np.array([-1])) == b"i\x08\0\0\0" + b"\xff" * 8


def test_a_null_key_in_a_usable_row_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'customer' is null in 1 usable rows"):
        key_ids(["customer"], [Nullable(text("a", ""), np.array([True, False]))])


def test_a_float_cannot_be_a_key() -> None:
    with pytest.raises(TypeError, match="'amount' can't be a key: float64"):
        key_ids(["amount"], [np.array([1.0])])


@given(st.lists(st.binary(max_size=70), max_size=20))
def test_the_hash_of_a_row_depends_on_that_row_alone(values: list[bytes]) -> None:
    together = key_hashes(PackedBytes.pack(values))
    alone = [key_hashes(PackedBytes.pack([value]))[0].tolist() for value in values]
    assert together.tolist() == alone
