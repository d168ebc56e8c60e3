"""Environments: one schema, used in several places that do not hold the same data.

A label is known when a model is trained, and not when an event is scored; a history may be allowed what a live event is not. The
constraints beside a schema (`schemas/constraints_file.py`) say what holds in which. A pipeline binds `SERVING`, or another one that its
topic names; a training set binds `TRAINING`.
"""

from __future__ import annotations

import re

from schemas.errors import DefinitionError

SERVING = "SERVING"
TRAINING = "TRAINING"

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,49}")


def refuse_training(environment: str, what: str) -> None:
    """What serves is not bound to what only training knows.

    Raises:
        DefinitionError: it would be.
    """
    if environment == TRAINING:
        raise DefinitionError(
            f"{what}: environment {TRAINING} is for training sets, which know labels; a pipeline binds {SERVING}, or one of its own"
        )


def refuse_mix_up(found: str | None, wanted: str, what: str) -> None:
    """Data of one environment is not taken for another's.

    Args:
        found: the environment that the data says it is of; None = it says nothing.
        wanted: where it is to be used.
        what: what messages call it.

    Raises:
        DefinitionError: they differ.
    """
    if found is not None and found != wanted:
        raise DefinitionError(f"{what} is of environment {found}, wanted {wanted}: they do not hold the same fields")
