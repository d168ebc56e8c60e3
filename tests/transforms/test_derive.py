"""Derived columns, and what happens when a user's function breaks its promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from schemas.columns import Column, Columns, Constant, Nullable, PackedBytes, Ragged, Symbols
from schemas.errors import DefinitionError
from transforms.derive import Derived, DerivedFault, derive

USABLE = np.array([True, False, True])
COLUMNS: Columns = {
    "amount": np.array([1.0, np.nan, 4.0]),
    "name": PackedBytes.pack([b"ann", b"", "böb".encode()]),
    "currency": Symbols(np.array([0, 0, 1], np.int32), ("EUR", "USD")),
    "country": Constant(b"AT", 3),
    "age": Nullable(np.array([30, 0, 0]), np.array([True, False, False])),
    "items": Ragged(np.array([1]), np.zeros(3, np.int64), np.ones(3, np.int64)),
}


def numbers(column: Column) -> NDArray[Any]:
    assert isinstance(column, np.ndarray)
    return column


def test_a_derived_column_stands_beside_the_others_and_may_use_those_before_it() -> None:
    result = derive(
        COLUMNS, (Derived("double", lambda c: numbers(c["amount"]) * 2), Derived("more", lambda c: numbers(c["double"]) + 1)), USABLE
    )
    assert list(result) == [*COLUMNS, "double", "more"]
    assert np.asarray(result["more"])[USABLE].tolist() == [3.0, 9.0]
    assert "double" not in COLUMNS


def test_rows_that_are_not_usable_may_come_to_anything() -> None:
    with np.errstate(all="raise"):
        column = derive(COLUMNS, (Derived("root", lambda c: np.log(numbers(c["amount"]))),), USABLE)["root"]
    assert np.asarray(column)[USABLE].tolist() == [0.0, np.log(4.0)]


def test_a_per_row_function_sees_python_values_of_usable_rows_only() -> None:
    seen: list[dict[str, Any]] = []

    def remember(row: Any) -> float:
        seen.append(dict(row))
        return float(row["amount"])

    column = derive(COLUMNS, (Derived.per_row("same", remember),), USABLE)["same"]
    assert np.asarray(column).tolist() == [1.0, 0.0, 4.0]
    assert seen == [
        {"amount": 1.0, "name": "ann", "currency": "EUR", "country": "AT", "age": 30},
        {"amount": 4.0, "name": "böb", "currency": "USD", "country": "AT", "age": None},
    ]


def test_a_per_row_function_is_not_called_for_a_batch_without_usable_rows() -> None:
    column = derive(COLUMNS, (Derived.per_row("never", lambda row: 1 / 0),), np.zeros(3, np.bool_))["never"]
    assert np.asarray(column).tolist() == [0.0, 0.0, 0.0]


def test_a_derived_column_may_be_text() -> None:
    made = derive(COLUMNS, (Derived("initials", lambda c: c["name"]),), USABLE)["initials"]
    assert isinstance(made, PackedBytes)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda c: c["amonut"], "its function raised KeyError: 'amonut'"),
        (lambda c: c["amount"][:2], "2 rows for a batch of 3"),
        (lambda c: np.where(c["amount"] > 2, np.nan, 0.0), "nan in row 2 of the batch"),
        (lambda c: c["amount"] / 0.0, "inf in row 0 of the batch \\(2 such rows\\)"),
        (lambda c: np.array(["a", "b", "c"]), "wanted one number a row"),
        (lambda c: 7, "wanted one number a row"),
        (lambda c: np.ones((3, 1)), "of shape \\(3, 1\\)"),
        (lambda c: None, "wanted one number a row"),
    ],
)
def test_a_function_that_breaks_its_promise_is_named(function: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(DerivedFault, match=f"derived column 'odd': .*{words}"):
        derive(COLUMNS, (Derived("odd", function),), USABLE)


def test_a_per_row_function_that_raises_is_named_and_its_error_kept() -> None:
    with pytest.raises(DerivedFault, match="'odd': its function raised ZeroDivisionError") as caught:
        derive(COLUMNS, (Derived.per_row("odd", lambda row: 1 / 0),), USABLE)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_name_that_is_no_identifier_is_refused() -> None:
    with pytest.raises(DefinitionError, match="must be an identifier, not 'week end'"):
        Derived("week end", lambda c: c)


def test_name_and_version_are_what_a_fingerprint_knows() -> None:
    assert Derived("a", lambda c: 1).describe() == Derived("a", lambda c: 2).describe()
    assert Derived("a", lambda c: 1).describe() != Derived("a", lambda c: 1, version=2).describe()
