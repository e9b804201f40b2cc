"""Parquet shards as Hugging Face writes them: an image column, a label column, row groups."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from whatwhere.study.data.base import DataError
from whatwhere.study.data.stream.stored import LABEL_NAMES, Stored

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png")
LARGEST_GROUP = 2**28  # bytes; a group is read whole for one sample of it


@dataclass(frozen=True)
class Columns:
    """Where the samples and labels are."""

    image: str
    label: str
    classes: tuple[str, ...]  # of a label that is a number; () if unknown


def scan(url: str, file: IO[bytes]) -> Iterator[Stored]:
    """Every sample of a shard in order.

    Raises:
        DataError: it is no parquet file, is damaged, or lacks an image or a label column.
    """
    try:
        with pyarrow.parquet.ParquetFile(file) as shard:
            columns = _columns(url, shard.schema_arrow)
            for group in range(shard.num_row_groups):
                size = shard.metadata.row_group(group).total_byte_size
                if size > LARGEST_GROUP:
                    raise DataError(
                        f"{url}: expected row groups of at most {LARGEST_GROUP >> 20} MiB, got one "
                        f"of {size >> 20} MiB; write it again with fewer rows in a group"
                    )
                table = shard.read_row_group(group, columns=[columns.image, columns.label])
                labels = table[columns.label].to_pylist()
                for row, content in enumerate(_contents(table[columns.image])):
                    name = f"row {row} of row group {group}"
                    yield _stored(name, row, content, labels[row], columns).in_block(group)
    except pyarrow.ArrowException as problem:
        raise DataError(f"{url} is damaged or no parquet file: {problem}") from problem


def read_group(file: IO[bytes], group: int) -> list[bytes]:
    """The content of every sample in a row group; empty where there is none."""
    with pyarrow.parquet.ParquetFile(file) as shard:
        image = _columns("", shard.schema_arrow).image
        table = shard.read_row_group(group, columns=[image])
        return [b"" if each is None else each for each in _contents(table[image])]


def _contents(column: Any) -> Iterator[bytes | None]:
    for each in column.to_pylist():
        yield each["bytes"] if isinstance(each, dict) else each


def _stored(name: str, row: int, content: bytes | None, label: Any, columns: Columns) -> Stored:
    problem = None
    if content is None:
        problem = "no image: its bytes are not in the file"
    if columns.classes and isinstance(label, int):
        label = columns.classes[label] if 0 <= label < len(columns.classes) else None
    if label is None and problem is None:
        problem = f"no label in the column {columns.label}"
    kept = b"" if content is None else content
    return Stored(name, row, len(kept), kept, None if label is None else str(label), problem)


def _columns(url: str, schema: Any) -> Columns:
    metadata = {} if schema.metadata is None else schema.metadata
    known = json.loads(metadata.get(b"huggingface", b"{}"))
    features = known.get("info", {}).get("features", {})

    def typed(kind: str) -> list[str]:
        return [
            name
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == kind
        ]

    images = typed("Image")
    if not images:
        images = [name for name in IMAGE_NAMES if name in schema.names]
    labels = typed("ClassLabel")
    if len(labels) != 1:
        candidates = labels if labels else schema.names
        labels = [name for name in LABEL_NAMES if name in candidates][:1]
    if len(images) != 1 or len(labels) != 1:
        raise DataError(
            f"{url}: expected one column of images and one of labels, named as in "
            f"{', '.join(IMAGE_NAMES)} and {', '.join(LABEL_NAMES)}, got {', '.join(schema.names)}"
        )
    classes = features.get(labels[0], {}).get("names", ())
    return Columns(images[0], labels[0], tuple(classes))
