from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

KERNEL = """
import sys
import numpy as np
from schemas.compiled import cold_kernels, compiled, warm_up
{factor}

@compiled("int64(int64)")
def half(x: int) -> int:
    return x // 2

@compiled("int64(const uint8[::1], int64)")
def total(data, start):
    found = np.int64(start)
    for i in range(len(data)):
        found += half(np.int64(data[i])) * FACTOR
    return found

if __name__ == "__main__":
    assert "numba" not in sys.modules
    print(len(cold_kernels()))
    print(total(np.frombuffer(bytes([2, 4]), np.uint8), 1), total(np.array([6], np.uint8), 0))
    warm_up()
    print(len(cold_kernels()), "numba" in sys.modules)
"""


def run(folder: Path, **more: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "NUMBA_CACHE_DIR": str(folder / "cache"), **more}
    environment = {name: value for name, value in environment.items() if value or name != "NUMBA_DISABLE_JIT"}
    answer = subprocess.run([sys.executable, "kernel.py"], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return answer.stdout.split()


def test_kernels_compile_once_and_again_when_a_number_they_take_from_elsewhere_changes(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(KERNEL.format(factor="from factor import FACTOR"))
    (tmp_path / "factor.py").write_text("FACTOR = 1\n")
    assert run(tmp_path, NUMBA_DISABLE_JIT="") == ["2", "4", "3", "0", "True"]
    assert run(tmp_path, NUMBA_DISABLE_JIT="") == ["0", "4", "3", "0", "True"]
    (tmp_path / "factor.py").write_text("FACTOR = 100\n")
    assert run(tmp_path, NUMBA_DISABLE_JIT="") == ["1", "301", "300", "0", "True"]


def test_kernels_compile_again_when_a_kernel_changes_that_is_called_by_one_they_call(tmp_path: Path) -> None:
    kernel = KERNEL.format(factor="from threefold import threefold\nFACTOR = 1")
    kernel = kernel.replace('@compiled("int64(int64)")\ndef half', "@compiled()\ndef half").replace("x // 2", "threefold(x // 2)")
    (tmp_path / "kernel.py").write_text(kernel)
    threefold = "from schemas.compiled import compiled\n\n@compiled()\ndef threefold(x):\n    return x * 3\n"
    (tmp_path / "threefold.py").write_text(threefold)
    assert run(tmp_path, NUMBA_DISABLE_JIT="") == ["1", "10", "9", "0", "True"]
    assert run(tmp_path, NUMBA_DISABLE_JIT="") == ["0", "10", "9", "0", "True"]
    (tmp_path / "threefold.py").write_text(threefold.replace("x * 3", "x * 300"))
    assert run(tmp_path, NUMBA_DISABLE_JIT="") == ["1", "901", "900", "0", "True"]


def test_kernels_run_as_python_when_numba_is_switched_off(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(KERNEL.format(factor="FACTOR = 1"))
    assert run(tmp_path, NUMBA_DISABLE_JIT="1") == ["0", "4", "3", "0", "False"]


def test_a_cache_folder_that_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text(KERNEL.format(factor="FACTOR = 1"))
    (tmp_path / "file").write_text("")
    environment = {"NUMBA_CACHE_DIR": str(tmp_path / "file" / "x"), "XDG_CACHE_HOME": str(tmp_path / "own"), "NUMBA_DISABLE_JIT": ""}
    assert run(tmp_path, **environment) == ["2", "4", "3", "0", "True"]
    assert list((tmp_path / "own" / "millrace" / "kernels").rglob("*.nbc"))


def test_the_codec_gives_the_same_with_numba_switched_off() -> None:
    code = (
        "from tests.schemas.test_decode import *\n"
        "schema = record(field('s', 'string'), field('a', {'type': 'array', 'items': 'double'}), field('n', ['null', 'long']))\n"
        "value = {'s': 'h\\u00e9llo', 'a': [0.5, -1.5], 'n': -3}\n"
        "values = PackedBytes.pack([write_value(value, schema.parsed), b'\\x02'])\n"
        "decoded = Decoder(schema, 'bare').decode(values)\n"
        "from schemas.codec import Encoder\n"
        "again = Encoder(schema, 'bare').encode(decoded.columns, np.array([0]))\n"
        "print(row_of(decoded.columns, 0), decoded.rejected.tolist(), again[0] == values[0])\n"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=ROOT,
            env={**os.environ, "NUMBA_DISABLE_JIT": flag},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for flag in ("0", "1")
    }
    assert answers == {"{'s': b'h\\xc3\\xa9llo', 'a': [0.5, -1.5], 'n': -3} [0, 4] True\n"}
