"""The files of a set on Hugging Face's hub, or of a folder laid out like one."""

from whatwhere.study.data.base import DataError
from whatwhere.study.data.folder import SPLIT_NAMES
from whatwhere.study.data.splitting import SplitName
from whatwhere.study.data.stream.names import ENDINGS, path_of


def files_of(name: str) -> list[tuple[str, SplitName]]:
    """The URL or path of every file of a set, and its split.

    Args:
        name: ``OWNER/SET``, ``OWNER/SET:CONFIGURATION``, or a folder.

    Raises:
        DataError: there is no such set, or it has files of another kind.
    """
    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetNotFoundError

    path, _, configuration = name.partition(":")
    try:
        builder = load_dataset_builder(path, configuration if configuration != "" else None)
    except (DatasetNotFoundError, ValueError, OSError, RuntimeError) as problem:
        raise DataError(f"hf:{name} can't be found: {problem}") from problem
    files: list[tuple[str, SplitName]] = []
    listed = builder.config.data_files
    for split, urls in ({} if listed is None else listed).items():
        if str(split).lower() not in SPLIT_NAMES:
            raise DataError(f"expected the splits of hf:{name} to be train, val, test; got {split}")
        files += [(url, SPLIT_NAMES[str(split).lower()]) for url in urls]
    other = sorted({path_of(url).suffix for url, _ in files} - set(ENDINGS))
    if not files:
        raise DataError(f"expected files in hf:{name}, found none")
    if other:
        raise DataError(
            f"expected hf:{name} to be made of parquet, Arrow or WebDataset's tar files, got files "
            f"ending in {', '.join(other)}. The hub keeps a copy in parquet of most sets: give its "
            "URLs, hf://datasets/OWNER/SET@refs%2Fconvert%2Fparquet/..."
        )
    return files
