"""Which networks are in the table, by library. A library is imported when its list is asked for."""

import importlib
import importlib.metadata

from benchmarks.reach.catalog.entry import Entry

# By distribution; None is this checkout itself.
LIBRARIES: dict[str, str | None] = {
    "torchvision": "torchvision",
    "transformers": "transformers",
    "segmentation": "segmentation-models-pytorch",
    "monai": "monai",
    "ultralytics": "ultralytics",
    "pytorchvideo": "pytorchvideo",
    "own": None,
    "timm": "timm",
}
TITLES = {
    "torchvision": "torchvision",
    "transformers": "Hugging Face transformers",
    "segmentation": "segmentation-models-pytorch",
    "monai": "MONAI",
    "ultralytics": "ultralytics",
    "pytorchvideo": "pytorchvideo",
    "own": "Networks of one's own",
    "timm": "timm",
}


def version(library: str) -> str | None:
    """The installed version of a library; None if it is not installed."""
    distribution = LIBRARIES[library]
    if distribution is None:
        return ""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def entries(library: str) -> dict[str, Entry]:
    """The networks of a library in the table, by name. timm's are any of its models.

    Raises:
        ImportError: the library is not installed.
    """
    module = importlib.import_module(f"benchmarks.reach.catalog.of_{library}")
    return {entry.name: entry for entry in module.entries()}


def entry(library: str, name: str) -> Entry:
    """One network; for timm any name that it knows."""
    if library == "timm":
        from benchmarks.reach.catalog.of_timm import timm_entry

        return timm_entry(name)
    return entries(library)[name]
