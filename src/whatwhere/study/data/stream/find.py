"""A streamed source: its classes, its splits, and its samples by row."""

import hashlib
from collections.abc import Sequence

import numpy as np

from whatwhere.study.data.assemble import Found, Moments
from whatwhere.study.data.base import DataError, DataSettings
from whatwhere.study.data.folder import MARGIN, SIZE, check_skipped
from whatwhere.study.data.splitting import Ints, Part, SplitName
from whatwhere.study.data.stream.index import ShardIndex, index_of
from whatwhere.study.data.stream.names import name_of
from whatwhere.study.data.stream.order import layout_of
from whatwhere.study.data.stream.places import places_of
from whatwhere.study.data.stream.samples import ShardSamples
from whatwhere.study.data.stream.shards import Shard, shards_of
from whatwhere.study.data.views import views


def find(settings: DataSettings) -> Found:
    """Read every shard once, unless that was done before; keep what is where, but no sample.

    Raises:
        DataError: a shard is damaged, or too many samples can't be used.
    """
    shards = tuple(shards_of(settings.source))
    size = SIZE if settings.size is None else settings.size
    side = round(size * MARGIN)
    indices = index_of(shards, size=size, side=side)
    skipped = tuple(each for index in indices for each in index.skipped)
    total = sum(len(index.place) for index in indices)
    check_skipped(skipped, total + len(skipped), settings.max_unreadable)
    shape = _shape(shards, indices)
    if shape != () and settings.size is not None:
        raise DataError(
            f"expected size only with images: sequences are used as stored, got size={size} for "
            f"sequences of shape {shape}"
        )
    full = [index for index in indices if len(index.place)]
    grey = all(index.grey for index in full) if shape == () else None
    places = places_of(indices, [shard.kind for shard in shards])
    samples = ShardSamples(shards, places, side=side, grey=grey)
    classes, parts = _parts(shards, indices, samples)
    channels = slice(0, 1) if grey else slice(None)
    content = [f"{each.name} {index.digest}" for each, index in zip(shards, indices, strict=True)]
    return Found(
        name=name_of(settings.source),
        classes=classes,
        parts=parts,
        views=views("sequences", shape)
        if grey is None
        else views("photographs", (1 if grey else 3, side, side), size),
        digest=hashlib.sha256("\n".join([str(side), *content]).encode()).hexdigest(),
        skipped=skipped,
        moments=Moments(
            mean=np.concatenate([index.mean for index in full])[:, channels],
            variance=np.concatenate([index.variance for index in full])[:, channels],
            low=np.concatenate([index.low for index in full]),
            high=np.concatenate([index.high for index in full]),
        ),
        layout=layout_of(places.block, int(places.bytes.max())),
    )


def _shape(shards: Sequence[Shard], indices: Sequence[ShardIndex]) -> tuple[int, ...]:
    shapes: dict[tuple[int, ...], str] = {}
    for shard, index in zip(shards, indices, strict=True):
        if len(index.place):
            shapes.setdefault(index.shape, shard.url)
    if not shapes:
        raise DataError(f"expected samples in {shards[0].url} and the others, found none")
    if len(shapes) > 1:
        told = ", ".join(
            f"{'images' if shape == () else shape} in {url}" for shape, url in shapes.items()
        )
        raise DataError(f"expected images alone or arrays of one shape, got {told}")
    return next(iter(shapes))


def _parts(
    shards: Sequence[Shard], indices: Sequence[ShardIndex], samples: ShardSamples
) -> tuple[tuple[str, ...], dict[SplitName, Part]]:
    by_split: dict[SplitName, set[str]] = {}
    for shard, index in zip(shards, indices, strict=True):
        by_split.setdefault(shard.split, set()).update(index.labels)
    if "train" not in by_split or not by_split["train"]:
        raise DataError("expected samples to train on, found none in the shards for train")
    classes = _sorted(by_split["train"])
    for split, labels in by_split.items():
        if strangers := sorted(labels - set(classes)):
            raise DataError(
                f"expected the labels of {split} to be among those of train, got "
                f"{', '.join(strangers[:5])} as well"
            )
    number = {name: position for position, name in enumerate(classes)}
    rows: dict[SplitName, list[Ints]] = {split: [] for split in by_split}
    labels_of: dict[SplitName, list[Ints]] = {split: [] for split in by_split}
    before = 0
    for shard, index in zip(shards, indices, strict=True):
        rows[shard.split].append(np.arange(before, before + len(index.place)))
        own = np.array([number[label] for label in index.labels], np.int64)
        labels_of[shard.split].append(own[index.label])
        before += len(index.place)
    parts = {
        split: Part(samples, np.concatenate(rows[split]), np.concatenate(labels_of[split]))
        for split in by_split
    }
    for split, part in parts.items():
        if len(part.rows) == 0:
            raise DataError(f"expected samples for {split}, found none that can be used")
    return classes, parts


def _sorted(labels: set[str]) -> tuple[str, ...]:
    if all(label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))
