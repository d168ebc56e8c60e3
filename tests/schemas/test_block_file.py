"""Files of blocks: what was written is read, the same is written alike, and what is not whole is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.block_file import Blocks, check_blocks, read_blocks, read_note, write_blocks
from schemas.columns import PackedBytes
from schemas.errors import StateError
from schemas.features import Json

NOTE: Mapping[str, Json] = {"partition": 3, "position": 1_042, "state": {"entities": ["customer"]}}


def some(entity: str, *numbers: int) -> Blocks:
    keys = np.array([[n, n * 7] for n in numbers], np.uint64)
    return Blocks(entity, keys, PackedBytes.pack([f"block {n} ".encode() * n for n in numbers]))


def write(file: Path, *blocks: Blocks) -> Mapping[str, Json]:
    return write_blocks(file, blocks or (some("customer", 1, 2, 3), some("customer", 4), some("terminal", 1)), lambda: NOTE)


def rows(file: Path) -> list[tuple[str, bytes, bytes]]:
    return [(part.entity, key.tobytes(), data) for part in read_blocks(file) for key, data in zip(part.keys, list(part.data), strict=True)]


def test_what_was_written_is_read_in_its_order(tmp_path: Path) -> None:
    said = write(tmp_path / "deep" / "a.parquet")
    assert read_note(tmp_path / "deep" / "a.parquet") == said
    assert {**said, **NOTE} == said
    assert said["rows"] == 5
    found = rows(tmp_path / "deep" / "a.parquet")
    assert [(entity, data) for entity, _, data in found] == [
        *(("customer", f"block {n} ".encode() * n) for n in (1, 2, 3, 4)),
        ("terminal", b"block 1 "),
    ]
    assert found[1][1] == np.array([2, 14], np.uint64).tobytes()


def test_any_reader_of_parquet_finds_entity_key_and_block(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column_names == ["entity", "key", "block"]
    assert table.num_rows == 5


def test_the_same_blocks_and_note_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_without_blocks_is_one(tmp_path: Path) -> None:
    write_blocks(tmp_path / "a", (), lambda: NOTE)
    assert rows(tmp_path / "a") == []
    assert read_note(tmp_path / "a")["rows"] == 0


def test_empty_blocks_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "a", Blocks("e", np.zeros((2, 2), np.uint64), PackedBytes.pack([b"", b""])))
    assert [data for _, _, data in rows(tmp_path / "a")] == [b"", b""]


def test_what_fails_half_way_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "a")
    before = (tmp_path / "a").read_bytes()

    def fails() -> Iterator[Blocks]:
        yield some("customer", 9)
        raise RuntimeError("the store is away")

    with pytest.raises(RuntimeError, match="away"):
        write_blocks(tmp_path / "a", fails(), lambda: NOTE)
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == before


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    write(tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(StateError, match="no whole snapshot"):
        check_blocks(tmp_path / "a")


def test_a_bit_that_fell_over_is_seen_wherever_it_stood(tmp_path: Path) -> None:
    write(tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    said = read_note(tmp_path / "a")
    for at in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[at] ^= 16
        (tmp_path / "a").write_bytes(changed)
        try:
            check_blocks(tmp_path / "a")
        except StateError:
            continue
        assert rows(tmp_path / "a")  # a byte that says nothing of rows or note: names of the writer, sizes, encodings
        assert read_note(tmp_path / "a") == said


def test_rows_of_another_file_are_not_taken_for_its_own(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", some("customer", 1, 2, 3), some("customer", 5), some("terminal", 1))
    note = pq.ParquetFile(tmp_path / "a").metadata.metadata[b"millrace"]
    other = pq.ParquetFile(tmp_path / "b")
    with pq.ParquetWriter(tmp_path / "c", other.schema_arrow) as mixed:
        for group in range(other.metadata.num_row_groups):
            mixed.write_table(other.read_row_group(group))
        mixed.add_key_value_metadata({b"millrace": note})
    with pytest.raises(StateError, match="not what was written"):
        check_blocks(tmp_path / "c")


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("no Parquet")
    pq.write_table(pa.table({"entity": ["customer"]}), tmp_path / "b")
    for name, words in (("a", "no whole snapshot"), ("b", "no snapshot of state"), ("c", "c")):
        with pytest.raises(StateError, match=words):
            read_note(tmp_path / name)
