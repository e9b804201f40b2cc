"""A study's data, and the network of each of its variants."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn

from whatwhere.gates import Start
from whatwhere.study import data
from whatwhere.study.backbones import Backbone
from whatwhere.study.data import DataSettings, StudyData
from whatwhere.study.settings import BASELINE, StudyError, StudySettings, Variant
from whatwhere.surgery import WORDS, attached, attend


@lru_cache(maxsize=1)
def load_data(settings: DataSettings) -> StudyData:
    """The data, kept between the trials of one process."""
    return data.load(settings)


class LostDataError(StudyError):
    """The data are no longer what a study began with."""


def same_data(settings: DataSettings, fingerprint: str | None) -> StudyData:
    """The data, read some time after the study's own process read them.

    Raises:
        LostDataError: they have gone, or their fingerprint is not the one given.
    """
    try:
        study_data = load_data(settings)
    except (ValueError, OSError) as error:
        raise LostDataError(
            f"the data could be read when the study began, and now can't: {error}. Put them back, "
            "and the same command goes on"
        ) from error
    if fingerprint not in (None, study_data.fingerprint):
        raise LostDataError(
            f"the data have changed while the study ran (fingerprint {fingerprint}, now "
            f"{study_data.fingerprint}): no trial ran on the changed ones. Put the former back, "
            "and the same command goes on, or choose another --out"
        )
    return study_data


def backbone_of(settings: StudySettings, study_data: StudyData) -> Backbone:
    """The study's backbone for its data."""
    return Backbone(
        settings.backbone,
        classes=len(study_data.classes),
        in_channels=study_data.shape[0],
        ndim=study_data.ndim,
        pretrained=settings.pretrained,
    )


def build_network(
    backbone: Backbone,
    variant: Variant,
    *,
    where: str,
    start: Start,
    shape: Sequence[int],
    seed: int,
) -> nn.Module:
    """A variant's network; one seed gives every variant the same weights where they share them.

    Raises:
        BackboneError: the backbone can't be built.
        StudyError: the gate can't go into it.
    """
    network = backbone.build(seed=seed, width=variant.width)
    if variant.gate is None:
        return network
    if attached(network):
        raise StudyError(
            f"{backbone.name} has gates of its own, so {variant.name} can't go into it; "
            f"ask for the variant {BASELINE} alone, or for the backbone without gates"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            attend(
                network,
                variant.gate,
                where=where if where in WORDS else where.split(","),
                start=start,
                example=torch.zeros(1, *shape),
                **variant.options,
            )
        except ValueError as error:
            raise StudyError(
                f"{variant.name} can't go into {backbone.name}: {error}\n"
                "--where names the modules, --start says how gates start"
            ) from error
    return network
