"""What a model's inputs and outputs must be, so that rows of features can be fed to it and one score a row comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from schemas.errors import ModelError

FLOAT = "tensor(float)"

Shape = list[int | str | None]  # an integer where a dimension is fixed


class Port(Protocol):
    """An input or output, as the runtime describes it."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> Any: ...


def check_inputs(found: Sequence[Port], names: tuple[str, ...], where: str) -> Mapping[str, Shape]:
    """Each input's shape: one table for all features, or one column a feature, by the features' names and in their order.

    Args:
        found: the model's inputs.
        names: the features of its card.
        where: the model's file, for messages.

    Raises:
        ModelError: they are something else.
    """
    for port in found:
        if port.type != FLOAT:
            raise ModelError(
                f"{where}: input {port.name!r} is {port.type}, wanted {FLOAT}; export with FloatTensorType([None, {len(names)}])"
            )
        if not port.shape or isinstance(port.shape[0], int):
            raise ModelError(f"{where}: input {port.name!r} has shape {port.shape}, wanted a free first dimension for the rows")
    shapes: dict[str, Shape] = {port.name: list(port.shape) for port in found}
    if len(found) == 1 and len(found[0].shape) == 2 and found[0].shape[1] in (len(names), None):
        return shapes
    if len(found) == 1 and (len(names) > 1 or len(found[0].shape) != 1):
        raise ModelError(
            f"{where}: input {found[0].name!r} has shape {found[0].shape}, wanted [None, {len(names)}] for the {len(names)} features "
            "of its card"
        )
    if len(found) != 1 and tuple(shapes) != names:
        raise ModelError(
            f"{where}: the model's inputs are {', '.join(shapes)}; its card's features are {', '.join(names)}; "
            "wanted one table for all of them, or one input a feature by the same names in the same order"
        )
    for name, shape in shapes.items():
        if shape[1:] not in ([], [1]):
            raise ModelError(f"{where}: input {name!r} has shape {shape}, wanted [None, 1], as there is one input a feature")
    return shapes


def check_outputs(found: Sequence[Port], where: str) -> str:
    """The name of the output that holds the score.

    Raises:
        ModelError: no output does, or it isn't clear which.
    """
    for port in found:
        if port.type.startswith("seq("):
            raise ModelError(
                f"{where}: output {port.name!r} is {port.type}, a dictionary a row (zipmap), wanted {FLOAT}; "
                "export with options={'zipmap': False}"
            )
    shown = ", ".join(f"{port.name}: {port.type} {port.shape}" for port in found)
    floats = [port for port in found if port.type == FLOAT]
    if len(floats) != 1:
        raise ModelError(f"{where}: {len(floats)} of the model's outputs are {FLOAT}, wanted exactly one, the score; there are {shown}")
    shape = floats[0].shape
    if len(shape) not in (1, 2) or (len(shape) == 2 and isinstance(shape[1], int) and shape[1] not in (1, 2)):
        raise ModelError(
            f"{where}: output {floats[0].name!r} has shape {shape}, wanted one score a row: [None], [None, 1] or [None, 2]; "
            f"there are {shown}"
        )
    return str(floats[0].name)
