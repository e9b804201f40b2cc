"""A study's data, and the network of each of its variants."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn

from whatwhere.study import data
from whatwhere.study.backbones import Backbone
from whatwhere.study.data import DataSettings, StudyData
from whatwhere.study.settings import StudyError, StudySettings, Variant
from whatwhere.surgery import WORDS, attend


@lru_cache(maxsize=1)
def load_data(settings: DataSettings) -> StudyData:
    """The data, kept between the trials of one process."""
    return data.load(settings)


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
    settings: StudySettings,
    *,
    shape: Sequence[int],
    seed: int,
) -> nn.Module:
    """A variant's network; one seed gives every variant the same weights where they share them."""
    network = backbone.build(seed=seed, width=variant.width)
    if variant.gate is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            example = torch.zeros(1, *shape)
            where = settings.where if settings.where in WORDS else settings.where.split(",")
            try:
                attend(
                    network,
                    variant.gate,
                    where=where,
                    start=settings.start,
                    example=example,
                    **variant.options,
                )
            except ValueError as error:
                raise StudyError(
                    f"{variant.name} can't go into {settings.backbone}: {error}\n"
                    "--where names the modules for a study"
                ) from error
    return network
