"""timm's models: any by name, and for the table the smallest of each architecture file."""

from collections.abc import Iterable

import timm

from benchmarks.reach.catalog.entry import Entry, image


def timm_entry(name: str) -> Entry:
    """One of timm's models, with images of the size that it keeps a record of."""
    record = timm.get_pretrained_cfg(name, allow_unregistered=False)
    channels, side, _ = (3, 224, 224) if record is None else record.input_size
    return Entry(name, lambda: timm.create_model(name), image(side, channels=channels))


def smallest(facts: Iterable[dict]) -> list[str]:
    """Of each architecture file the network with the fewest parameters; tests' toys aside."""
    best: dict[str, dict] = {}
    for fact in facts:
        if fact["convolutional"] and not fact["name"].startswith("test_"):
            known = best.setdefault(fact["file"], fact)
            if fact["parameters"] < known["parameters"]:
                best[fact["file"]] = fact
    return sorted(fact["name"] for fact in best.values())
