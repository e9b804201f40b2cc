"""Shards for tests: small pictures with their number drawn into them, in tar and parquet files."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

SIDE = 16


def picture(number: int, label: int) -> bytes:
    """A PNG whose first row of pixels is the number in binary, and whose shape tells the label."""
    pixels = np.full((SIDE, SIDE, 3), 40, np.uint8)
    pixels[0, :, 0] = [255 * (number >> bit & 1) for bit in range(SIDE)]
    if label == 0:
        pixels[7:9, 3:13] = 200
    else:
        pixels[3:13, 7:9] = 200
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def number_in(content: bytes) -> int:
    with Image.open(io.BytesIO(content)) as image:
        row = np.asarray(image)[0, :, 0]
    return sum(1 << bit for bit in range(SIDE) if row[bit] > 127)


def write_tar(path: Path, samples: list[dict[str, bytes]]) -> Path:
    """Samples as WebDataset writes them: ``{"name": b"...", "png": ..., "cls": ...}``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for position, sample in enumerate(samples):
            for ending, content in sample.items():
                member = tarfile.TarInfo(f"{position:06}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def sample(number: int, label: int | None = None) -> dict[str, bytes]:
    label = number % 2 if label is None else label
    return {"png": picture(number, label), "cls": str(label).encode()}


def tar_shards(folder: Path, counts: list[int], *, split: str = "train", first: int = 0) -> Path:
    for shard, count in enumerate(counts):
        numbers = range(first, first + count)
        write_tar(folder / f"{split}-{shard:03}.tar", [sample(number) for number in numbers])
        first += count
    return folder


def parquet_shards(
    folder: Path,
    counts: list[int],
    *,
    split: str = "train",
    first: int = 0,
    group: int = 5,
    kind: str = "parquet",
) -> Path:
    """As Hugging Face's ``datasets`` writes them: features in the metadata, images as structs."""
    folder.mkdir(parents=True, exist_ok=True)
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["bar", "post"]},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for shard, count in enumerate(counts):
        numbers = range(first, first + count)
        images = [{"bytes": picture(n, n % 2), "path": None} for n in numbers]
        table = pyarrow.table({"image": images, "label": [n % 2 for n in numbers]})
        table = table.replace_schema_metadata(metadata)
        path = folder / f"{split}-{shard:05}-of-{len(counts):05}.{kind}"
        if kind == "parquet":
            pyarrow.parquet.write_table(table, path, row_group_size=group)
        else:
            new = pyarrow.ipc.new_stream if shard % 2 else pyarrow.ipc.new_file
            with new(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=group)
        first += count
    return folder


def arrow_shards(folder: Path, counts: list[int], **options) -> Path:
    """The same as files and streams of record batches, in turn."""
    return parquet_shards(folder, counts, kind="arrow", **options)


MAKERS = {"tar": tar_shards, "parquet": parquet_shards, "arrow": arrow_shards}


def numbered(value: float, shape: tuple[int, ...] = (1, 8)) -> bytes:
    """An .npy file with the same number in every place: what is loaded says which it is."""
    content = io.BytesIO()
    np.save(content, np.full(shape, value, np.float32))
    return content.getvalue()


def numbered_shards(folder: Path, counts: list[int]) -> Path:
    """Samples that are their number, of two classes in turn."""
    first = 0
    for shard, count in enumerate(counts):
        rows = [
            {"npy": numbered(number), "cls": str(number % 2).encode()}
            for number in range(first, first + count)
        ]
        write_tar(folder / f"{shard:03}.tar", rows)
        first += count
    return folder


def numbers_of(data, x) -> list[int]:
    """The numbers of a batch of such samples, or of one, as the network is given them."""
    low, high = data.value_range
    values = data.unnormalise(x).flatten(-2).mean(-1) * (high - low) + low
    return [round(value) for value in values.reshape(-1).tolist()]
