"""Names of streamed sources: which they are, and the shards that a pattern stands for."""

import re
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["tar", "parquet", "arrow"]

PREFIX = "hf:"
ENDINGS: dict[str, Kind] = {".tar": "tar", ".parquet": "parquet", ".arrow": "arrow"}


def is_stream(source: str) -> bool:
    """Whether a source is one of shards: ``hf:NAME``, or files or URLs that end as shards do.

    >>> [is_stream(each) for each in ("hf:cifar10", "a/train-{000..011}.tar", "folder", "x.npz")]
    [True, True, False, False]
    """
    return (
        source.startswith(PREFIX)
        or "://" in source
        or path_of(source.rstrip("}")).suffix in ENDINGS
    )


def expand(pattern: str) -> list[str]:
    """A pattern without its braces, as shells write them: ranges, and alternatives.

    >>> expand("{train-{08..10},val}.tar")
    ['train-08.tar', 'val.tar', 'train-09.tar', 'train-10.tar']
    """
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    inside = found[1]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if numbers is None:
        options = inside.split(",")
    else:
        first, last = numbers.groups()
        options = [f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1)]
    before, after = pattern[: found.start()], pattern[found.end() :]
    every = (whole for option in options for whole in expand(f"{before}{option}{after}"))
    return list(dict.fromkeys(every))  # an inner brace leaves its outer one's others as they are


def path_of(url: str) -> PurePosixPath:
    """The path in a URL, or a path as it is."""
    return PurePosixPath(urlsplit(url).path if "://" in url else url)


def name_of(source: str) -> str:
    """What the data are called: the set's name, or that of the folder that the shards are in.

    >>> [name_of(each) for each in ("hf:owner/set", "https://host/cats/train-{00..11}.tar")]
    ['set', 'cats']
    """
    if source.startswith(PREFIX):
        return source.removeprefix(PREFIX).rstrip("/").rpartition("/")[-1]
    path = path_of(source)
    return path.stem if path.parent.name == "" else path.parent.name
