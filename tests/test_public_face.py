"""The face: what users may import, and that nothing hides what is behind it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import millrace
from millrace.hidden import PACKAGES, hiding

ROOT = Path(__file__).parents[1]

NAMES = [
    *(
        "CloudEvents",
        "Column",
        "Columns",
        "Constant",
        "Count",
        "DefinitionError",
        "Derived",
        "Distinct",
        "Entity",
        "EventColumns",
        "EventWriter",
        "FeatureReader",
        "FixedPoint",
        "Floats",
        "Guard",
        "Ints",
        "KeyFeatures",
        "LabelCount",
        "LabelRate",
    ),
    *("Labels", "Last", "Mask", "Max", "Mean", "MillraceError", "Min", "Model", "Nullable", "PackedBytes", "Pipeline", "Ragged"),
    *(
        "RatePerDay",
        "RatioToMean",
        "RecordError",
        "Refused",
        "Row",
        "Rule",
        "SingleObject",
        "Std",
        "Sum",
        "Symbols",
        "Topic",
        "Window",
        "days",
        "hours",
        "in_range",
    ),
    *("load_bound", "load_pipeline", "minutes", "one_of", "present", "seconds", "valency"),
]


def python(code: str, folder: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*paths, ROOT)))}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def run_module(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python -m millrace`` in a folder, which Python then puts before everything else."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "millrace", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_public_names_are_these_and_no_others() -> None:
    assert list(millrace.__all__) == NAMES
    assert dir(millrace) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(millrace, name) is not None


def test_another_name_is_an_attribute_error_that_imports_nothing() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Worker'"):
        _ = millrace.Worker


def test_importing_the_face_and_showing_help_loads_no_heavy_library(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['millrace', '--help']; from millrace.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numba', 'numpy', 'onnxruntime', 'faust', 'confluent_kafka', 'fastavro', 'redis', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dry-run" in done.stdout


def test_a_pipeline_file_can_be_defined_without_numba_kafka_or_the_model_runtime(tmp_path: Path) -> None:
    code = (
        "import sys; from millrace import *; Entity('c', key='k', windows=(Window(days(1)),), aggregates=(Count(),))\n"
        "heavy = {'numba', 'onnxruntime', 'faust', 'confluent_kafka', 'redis'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("form", ["package", "module"])
def test_a_folder_or_file_in_the_working_directory_that_hides_a_package_of_ours_is_said_by_name(
    tmp_path: Path, package: str, form: str
) -> None:
    if form == "package":
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    else:
        (tmp_path / f"{package}.py").write_text("")
    done = run_module(tmp_path, "version")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / package) in done.stderr
    assert repr(package) in done.stderr


def test_a_folder_of_schema_files_in_the_working_directory_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas/1-payments-value.avsc").write_text("{}")
    done = run_module(tmp_path, "version")
    assert done.returncode == 0, done.stderr


def test_a_script_that_imports_the_face_beside_a_hiding_folder_is_told_as_well(tmp_path: Path) -> None:
    (tmp_path / "transforms").mkdir()
    (tmp_path / "transforms/__init__.py").write_text("")
    done = python("from millrace import Window", tmp_path)
    assert done.returncode == 1
    assert str(tmp_path / "transforms") in done.stderr.splitlines()[-1]


def test_nothing_hides_our_packages_here() -> None:
    assert hiding() is None
