"""Arrow shards, as ``datasets`` writes them to disk: streams or files of record batches."""

from collections.abc import Iterator
from typing import IO, Any

import pyarrow

from whatwhere.study.data.base import DataError
from whatwhere.study.data.stream import tables
from whatwhere.study.data.stream.stored import Stored

# A file is a stream after eight bytes that say so, with a list of its batches behind.
MAGIC = b"ARROW1\0\0"
END = b"\xff\xff\xff\xff\0\0\0\0"


def scan(url: str, file: IO[bytes]) -> Iterator[Stored]:
    """Every sample of a shard in order, where its record batch begins as its block.

    Raises:
        DataError: it is no Arrow file, is damaged, or lacks an image or a label column.
    """
    try:
        schema = _schema(file)
        columns = tables.columns_of(url, schema)
        while True:
            start = file.tell()
            if file.read(len(END)) == END:
                return
            file.seek(start)
            batch = _batch(file, schema)
            tables.check_size(url, file.tell() - start)
            yield from tables.rows(batch, columns, group=start, name=f"the batch at byte {start}")
    except (pyarrow.ArrowException, EOFError) as problem:
        raise DataError(f"{url} is damaged, cut off, or no Arrow file: {problem}") from problem


def read_group(file: IO[bytes], start: int) -> list[bytes]:
    """The content of every sample in the record batch at a byte; empty where there is none."""
    schema = _schema(file)
    file.seek(start)
    batch = _batch(file, schema)
    column = batch[tables.columns_of("", schema).image]
    return [b"" if each is None else each for each in tables.contents(column)]


def _schema(file: IO[bytes]) -> Any:
    if file.read(len(MAGIC)) != MAGIC:
        file.seek(0)
    return pyarrow.ipc.read_schema(_message(file))


def _batch(file: IO[bytes], schema: Any) -> Any:
    return pyarrow.ipc.read_record_batch(_message(file), schema)


def _message(file: IO[bytes]) -> Any:
    return pyarrow.ipc.read_message(pyarrow.PythonFile(file, "r"))
