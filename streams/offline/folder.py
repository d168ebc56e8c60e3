"""A folder of built features: what it says of itself, and its files in order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.environment import TRAINING, refuse_mix_up
from schemas.errors import HistoryError
from schemas.table_file import TableFile, open_table_file
from streams.definition.bound import Bound
from streams.offline.build import FORMAT, MANIFEST


@dataclass(frozen=True, slots=True)
class FeatureFolder:
    """Features as `build_features` left them.

    Attributes:
        path: of the folder.
        said: its manifest.
    """

    path: Path
    said: Mapping[str, Any]

    def files(self) -> Iterator[tuple[int, TableFile]]:
        """Its files in the order of their logs, each with its partition.

        Raises:
            HistoryError: one is missing, broken, or of another length than the manifest says.
        """
        for part in self.said["parts"]:
            file = open_table_file(self.path / part["file"])
            if file.rows != part["rows"]:
                raise HistoryError(f"{file.path} has {file.rows} rows, wanted {part['rows']} by {MANIFEST}: the features were changed")
            yield int(part["partition"]), file


def open_features(path: Path, bound: Bound) -> FeatureFolder:
    """The features in a folder, made by the very definitions of a pipeline.

    Raises:
        HistoryError: there are none, or they were made by other definitions.
    """
    try:
        said = json.loads((path / MANIFEST).read_text())
    except FileNotFoundError as error:
        raise HistoryError(f"{path} holds no features: it has no {MANIFEST}; `millrace features build` makes them") from error
    except (OSError, ValueError) as error:
        raise HistoryError(f"{path / MANIFEST} can't be read: {error}") from error
    if said.get("environment") == TRAINING:
        raise HistoryError(f"{path} is a training set, of environment {TRAINING}; wanted features, as `millrace features build` makes them")
    if said.get("format") != FORMAT:
        raise HistoryError(f"{path / MANIFEST} is of format {said.get('format')}, wanted {FORMAT}")
    refuse_mix_up(said.get("environment"), bound.input.environment, str(path))
    found, wanted = said["feature_fingerprint"], bound.features.fingerprint
    if found != wanted:
        raise HistoryError(
            f"{path} was made by features {found}, pipeline {bound.name!r} has {wanted}; build it again, or see `millrace features diff`"
        )
    return FeatureFolder(path, said)
