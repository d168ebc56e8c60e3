"""Try a pipeline's functions on a batch without rows: a misspelt column, or a result of the wrong kind, shows without an event."""

from __future__ import annotations

import numpy as np

from schemas.codec import Decoder
from schemas.columns import PackedBytes
from schemas.errors import DefinitionError
from schemas.rules import RuleBug, check
from streams.definition.bound import Bound
from transforms.derive import DerivedFault, derive


def try_functions(bound: Bound) -> None:
    """Run every rule and derived column over no rows at all.

    Raises:
        DefinitionError: one of them raises, or gives something else than a column.
    """
    columns = dict(Decoder(bound.schema, "bare", None).decode(PackedBytes.pack([])).columns)
    columns[bound.event_time.column] = bound.event_time.to_ms(columns[bound.event_time.column])
    try:
        check(bound.rules, columns, np.zeros(0, np.uint8))
        derive(columns, bound.pipeline.derived, np.zeros(0, np.bool_))
    except (RuleBug, DerivedFault) as error:
        raise DefinitionError(
            f"pipeline {bound.name!r}, tried on a batch without rows: {error}; there are the columns {', '.join(columns)}"
        ) from error
