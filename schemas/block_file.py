"""Files of byte blocks: what a snapshot of state is written as. With the modules for tables, the door to pyarrow.

A file is Parquet: a row a block, with its entity, its key (the 16 bytes of a hash) and its bytes, in the order they were given, and a
note in the file's metadata, as JSON under ``millrace``. The note ends with a SHA-256 of itself and of every row, so that a file that
was cut short, changed or put together from two is never taken for a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.columns import PackedBytes
from schemas.errors import StateError
from schemas.features import Json

NOTE = b"millrace"
KEY_BYTES = 16
_SCHEMA = pa.schema(
    [
        pa.field("entity", pa.string(), nullable=False),
        pa.field("key", pa.binary(KEY_BYTES), nullable=False),
        pa.field("block", pa.large_binary(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Some blocks of one entity."""

    entity: str
    keys: NDArray[np.uint64]  # shape (n, 2)
    data: PackedBytes  # n blocks


@dataclass(slots=True)
class _Digest:
    """Of rows and note, whatever the file's own layout."""

    sha: Any = field(default_factory=hashlib.sha256)
    rows: int = 0
    size_bytes: int = 0

    def add(self, blocks: Blocks) -> None:
        sizes = blocks.data.ends - blocks.data.starts
        name = blocks.entity.encode()
        for part in (len(name).to_bytes(8, "little"), name, len(sizes).to_bytes(8, "little"), blocks.keys.tobytes(), sizes.tobytes()):
            self.sha.update(part)
        for data in blocks.data:
            self.sha.update(data)
        self.rows += len(sizes)
        self.size_bytes += int(sizes.sum())

    def of(self, note: Mapping[str, Json]) -> str:
        whole = self.sha.copy()
        whole.update(json.dumps(note, sort_keys=True).encode())
        return str(whole.hexdigest())


def write_blocks(file: Path, blocks: Iterable[Blocks], note: Callable[[], Mapping[str, Json]]) -> Mapping[str, Json]:
    """Write a file aside and put it in its place when it is whole and on the disk. The same blocks and note give the same bytes.

    Args:
        file: where it goes; one that is there is replaced.
        blocks: in the order they are to stand in.
        note: what the file says of itself; asked for when all blocks have been given.

    Returns:
        The note as it was written, with ``rows``, ``size_bytes`` (of all blocks) and ``digest``.

    Raises:
        StateError: it can't be written. Whatever `blocks` and `note` raise goes through, and leaves no file.
    """
    aside = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        said = _write(aside, blocks, note)
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(file)
        _sync_folder(file.parent)
        return said
    except OSError as error:
        raise StateError(f"{file} can't be written: {error}") from error
    finally:
        aside.unlink(missing_ok=True)


def _write(file: Path, blocks: Iterable[Blocks], note: Callable[[], Mapping[str, Json]]) -> Mapping[str, Json]:
    digest = _Digest()
    with pq.ParquetWriter(file, _SCHEMA, compression="zstd", use_dictionary=["entity"], write_statistics=False) as writer:
        for some in blocks:
            if len(some.keys):
                digest.add(some)
                writer.write_table(_table(some), row_group_size=len(some.keys))
        said: dict[str, Json] = {**note(), "rows": digest.rows, "size_bytes": digest.size_bytes}
        said["digest"] = digest.of(said)
        writer.add_key_value_metadata({NOTE: json.dumps(said, sort_keys=True).encode()})
    return said


def _table(blocks: Blocks) -> Any:
    count = len(blocks.keys)
    packed = PackedBytes.pack(list(blocks.data))
    offsets = np.concatenate((packed.starts[:1], packed.ends)).astype(np.int64)
    data = pa.Array.from_buffers(pa.large_binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(packed.data)])
    keys = pa.Array.from_buffers(pa.binary(KEY_BYTES), count, [None, pa.py_buffer(np.ascontiguousarray(blocks.keys))])
    return pa.table([pa.array([blocks.entity] * count, pa.string()), keys, data], schema=_SCHEMA)


def _sync_folder(folder: Path) -> None:
    held = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def read_note(file: Path) -> Mapping[str, Json]:
    """What a file says of itself; its rows are not looked at.

    Raises:
        StateError: it can't be read, or is no such file.
    """
    with _Opened(file) as opened:
        return _note(file, opened)


def read_blocks(file: Path) -> Iterator[Blocks]:
    """The blocks of a file, in its order; at its end it is known to be whole.

    Raises:
        StateError: it can't be read, or isn't what was written.
    """
    digest = _Digest()
    with _Opened(file) as opened:
        note = dict(_note(file, opened))
        for group in range(opened.metadata.num_row_groups):
            some = _blocks(opened.read_row_group(group))
            digest.add(some)
            yield some
        wanted = note.pop("digest", None)
        if digest.of(note) != wanted:
            raise StateError(f"{file} is not what was written: its SHA-256 is {digest.of(note)[:16]}..., and it says {str(wanted)[:16]}...")


def check_blocks(file: Path) -> None:
    """Read a file to its end.

    Raises:
        StateError: it can't be read, or isn't what was written.
    """
    for _ in read_blocks(file):
        pass


class _Opened:
    """A Parquet file, and what can be wrong with one in a line."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> Any:
        try:
            self._opened = pq.ParquetFile(self._file)
        except (pa.ArrowException, OSError) as error:
            raise self._broken(error) from error
        return self._opened

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._opened.close()
        if isinstance(error, pa.ArrowException | OSError | ValueError | KeyError | TypeError):
            raise self._broken(error) from error

    def _broken(self, error: BaseException) -> StateError:
        return StateError(f"{self._file} is no whole snapshot: {' '.join(str(error).split())[:200]}")


def _note(file: Path, opened: Any) -> Mapping[str, Json]:
    found = (opened.metadata.metadata or {}).get(NOTE)
    if found is None or not opened.schema_arrow.equals(_SCHEMA):
        raise StateError(f"{file} is no snapshot of state: wanted a file that `millrace state snapshot` wrote")
    note: Mapping[str, Json] = json.loads(found)
    return note


def _blocks(table: Any) -> Blocks:
    names = table.column("entity").unique().to_pylist()
    if len(names) != 1:
        raise ValueError(f"{len(names)} entities in one row group, wanted 1")
    keys, data = (table.column(name).combine_chunks() for name in ("key", "block"))
    offsets = np.frombuffer(data.buffers()[1], np.int64)[data.offset : data.offset + len(data) + 1]
    first = keys.offset * KEY_BYTES
    octets = np.frombuffer(keys.buffers()[1], np.uint8)[first : first + len(keys) * KEY_BYTES]
    content = data.buffers()[2]
    return Blocks(
        names[0],
        np.frombuffer(octets.tobytes(), np.uint64).reshape(-1, 2),
        PackedBytes(np.frombuffer(content, np.uint8) if content is not None else np.zeros(0, np.uint8), offsets[:-1], offsets[1:]),
    )
