"""Parquet shards as Hugging Face writes them: an image column, a label column, row groups."""

from collections.abc import Iterator
from typing import IO

import pyarrow
import pyarrow.parquet

from whatwhere.study.data.base import DataError
from whatwhere.study.data.stream import tables
from whatwhere.study.data.stream.stored import Stored


def scan(url: str, file: IO[bytes]) -> Iterator[Stored]:
    """Every sample of a shard in order, its row group as its block.

    Raises:
        DataError: it is no parquet file, is damaged, or lacks an image or a label column.
    """
    try:
        with pyarrow.parquet.ParquetFile(file) as shard:
            columns = tables.columns_of(url, shard.schema_arrow)
            for group in range(shard.num_row_groups):
                tables.check_size(url, shard.metadata.row_group(group).total_byte_size)
                table = shard.read_row_group(group, columns=[columns.image, columns.label])
                yield from tables.rows(table, columns, group=group, name=f"row group {group}")
    except pyarrow.ArrowException as problem:
        raise DataError(f"{url} is damaged or no parquet file: {problem}") from problem


def read_group(file: IO[bytes], group: int) -> list[bytes]:
    """The content of every sample in a row group; empty where there is none."""
    with pyarrow.parquet.ParquetFile(file) as shard:
        image = tables.columns_of("", shard.schema_arrow).image
        table = shard.read_row_group(group, columns=[image])
        return [b"" if each is None else each for each in tables.contents(table[image])]
