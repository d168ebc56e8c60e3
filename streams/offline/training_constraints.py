"""What a training set has to be: the constraints of `TRAINING`, which know labels that `SERVING` does not have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from schemas.avro import AvroSchema, Record, to_json
from schemas.columns import Mask
from schemas.constraints import Constraints
from schemas.constraints_check import field_types
from schemas.constraints_file import environments_of, find_constraints
from schemas.constraints_rules import constraint_rules
from schemas.environment import TRAINING
from schemas.errors import HistoryError
from schemas.loose_table import with_column
from schemas.read_table import TableReader
from schemas.reject import FIRST_RULE
from schemas.rules import Rule, check
from schemas.table import Table
from streams.definition.bound import Bound
from streams.definition.bound_constraints import bind_constraints


@dataclass(frozen=True)
class TrainingConstraints:
    """Holds the rows of a training set against its constraints.

    Attributes:
        constraints: of `TRAINING`.
        rules: of a row.
        reader: of the columns that they look at.
        label: the field that stands for the label, which the set has under another name; None = no field does.
        column: that name.
    """

    constraints: Constraints
    rules: tuple[Rule, ...]
    reader: TableReader
    label: str | None
    column: str

    @classmethod
    def of(cls, bound: Bound, shape: Table, column: str, where: str, time_zone: str | None) -> TrainingConstraints | None:
        """Those of a pipeline's input; None if there are none for training.

        Args:
            bound: the pipeline.
            shape: the set's table, its label included.
            column: of the label.
            where: what messages call the table.
            time_zone: of times that have none.

        Raises:
            SchemaError: the constraints are broken.
            HistoryError: a field that training requires is not in the table.
        """
        file = find_constraints(bound.folder / str(bound.input.schema), bound.input.name)
        file = bound.folder / bound.input.constraints if bound.input.constraints is not None else file
        if file is None or TRAINING not in environments_of(file):
            return None
        constraints = bind_constraints(bound.input, bound.folder, TRAINING)
        assert constraints is not None
        schema = bound.written_schema
        value = None if bound.pipeline.labels is None else bound.pipeline.labels.value
        there = {name.partition(".")[0] for name in shape.column_names}
        label = next((name for name in constraints.fields if name == column or (name == value and name not in there)), None)
        for name, each in constraints.fields.items():
            if each.required and name.partition(".")[0] not in there and name != label:
                raise HistoryError(f"{where} has no column {name!r}, which {TRAINING} requires by {constraints.source}")
        rules = [
            rule
            for rule in constraint_rules(constraints, field_types(schema))
            if all(name.partition(".")[0] in there or name == label for name in rule.columns)
        ]
        needed = {name.partition(".")[0] for rule in rules for name in rule.columns}
        root = schema.root
        assert isinstance(root, Record)
        fields = tuple(each for each in root.fields if each.name in needed)
        if not fields:
            return None
        part = AvroSchema(to_json(Record(root.name, fields), schema.named))
        shaped = with_column(shape, label, shape.column(column), _is_boolean(part, label)) if label is not None else shape
        return cls(constraints, tuple(rules), TableReader.of(shaped, part, where, time_zone), label, column)

    def look(self, table: Table) -> tuple[Mask, Mapping[str, int]]:
        """Shape (n,): rows that are as they have to be; and how many are not, by constraint.

        Raises:
            HistoryError: a column is of another type than the schema's.
        """
        if self.label is not None:
            table = with_column(table, self.label, table.column(self.column), _is_boolean(self.reader.schema, self.label))
        codes = check(self.rules, self.reader.columns(table, 0), np.zeros(len(table), np.uint8))
        counts = {self.rules[code - FIRST_RULE].name: n for code, n in enumerate(np.bincount(codes).tolist()) if code >= FIRST_RULE and n}
        return np.asarray(codes == 0), counts


def _is_boolean(schema: AvroSchema, name: str | None) -> bool:
    return name is not None and field_types(schema)[name].kind == "boolean"
