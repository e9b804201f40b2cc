"""What is served: the networks of a checkpoint or of a study's folder, one thread at a time."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whatwhere.checkpoints import load
from whatwhere.checkpoints.files import describe
from whatwhere.files import read_json
from whatwhere.inputs import Preparation
from whatwhere.serve.answers import Place, mean_gates, places, probabilities
from whatwhere.study.backbones import Backbone

KEPT = 6  # networks in memory at once


@dataclass(frozen=True)
class Member:
    """One network that can be shown: its file, and what the file says of it.

    Attributes:
        title: what it is called on the page.
        path: of the checkpoint.
        facts: of the checkpoint.
        variant: of the study; of a checkpoint alone its title.
        seed: of the study; of a checkpoint alone 0.
        sites: how many places with gates the file says it has.
    """

    title: str
    path: Path
    facts: Mapping[str, Any]
    variant: str
    seed: int
    sites: int


def members_of(path: Path) -> tuple[Member, ...]:
    """The networks at a path: a checkpoint, or all finished trials of a study's folder.

    Those of a study come in its own order, the plain network first.

    Raises:
        ValueError: there are none, or a file is no checkpoint.
    """
    if path.is_file():
        said = describe(path)
        return (Member(path.stem, path, said["facts"], path.stem, 0, len(said["gates"])),)
    if not path.exists():
        raise ValueError(f"expected a checkpoint or a study's folder, {path} does not exist")
    study = read_json(path / "study.json")
    files = sorted(path.glob("trials/*/model.safetensors"))
    if study is None or not files:
        raise ValueError(
            f"expected a checkpoint, or a study's folder with study.json and finished trials, "
            f"trials/*/model.safetensors; {path} has none"
        )
    widths = {row["name"]: row["width"] for row in study["variants"]}
    order = list(widths)
    found = []
    for file in files:
        said = describe(file)
        facts = said["facts"]
        variant, seed = facts["variant"], facts["seed"]
        if widths.get(variant) == facts["width"]:  # not the control of before it was extended
            title = f"{variant}, seed {seed}"
            found.append(Member(title, file, facts, variant, seed, len(said["gates"])))
    found.sort(key=lambda member: (order.index(member.variant), member.seed))
    return tuple(found)


def study_of(path: Path) -> Path | None:
    """The study's folder that a path is, or is a trial's checkpoint in; else None."""
    folder = path if path.is_dir() else path.resolve().parent.parent.parent
    return folder if (folder / "study.json").is_file() else None


class Served:
    """Networks by title, loaded when they are first asked for.

    A network whose gates are replaced for one request must not answer another, so ``use`` hands
    out networks to one thread at a time.

    Args:
        members: the networks.
        preparation: what they take.
        samples: (M, C, *S), over which a gate's mean is taken; None where there are none.
        trust: packages whose functions a file may call to build its network.

    Raises:
        ValueError: the first network can't be built, or is no classifier.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        preparation: Preparation,
        samples: Tensor | None = None,
        trust: Sequence[str] = (),
    ) -> None:
        self.members = {member.title: member for member in members}
        self.preparation = preparation
        self.samples = samples
        self._trust = tuple(trust)
        self._networks: dict[str, nn.Module] = {}
        self._places: dict[str, tuple[Place, ...]] = {}
        self._means: dict[str, dict[str, Tensor]] = {}
        self._lock = threading.RLock()
        with self.use(members[0].title) as model:
            count = len(probabilities(model, self._zeros()))
        named = preparation.classes
        self.classes = tuple(map(str, range(count))) if named is None else named
        if len(self.classes) != count:
            raise ValueError(
                f"expected as many names of classes as the network has answers, {count}, got "
                f"{len(self.classes)} in {members[0].path}"
            )

    @contextmanager
    def use(self, title: str) -> Iterator[nn.Module]:
        """The network in eval mode, and no other thread with any, for the length of a block."""
        with self._lock:
            if title not in self._networks:
                while len(self._networks) >= KEPT:
                    self._networks.pop(next(iter(self._networks)))
                self._networks[title] = open_network(self.members[title], trust=self._trust)
            yield self._networks[title]

    def places(self, title: str) -> tuple[Place, ...]:
        """Where the network has gates, in the order in which they run."""
        with self.use(title) as model:
            if title not in self._places:
                self._places[title] = places(model, self._zeros())
            return self._places[title]

    def means(self, title: str) -> dict[str, Tensor]:
        """The mean of each gate over the samples, by name.

        Raises:
            ValueError: there are no samples.
        """
        if self.samples is None:
            raise ValueError("expected samples to take the means of gates over, got none")
        with self.use(title) as model:
            if title not in self._means:
                self._means[title] = mean_gates(model, self.samples)
            return self._means[title]

    def title_of(self, variant: str, seed: int) -> str | None:
        """The network of a variant and a seed; None where that trial did not finish."""
        for title, member in self.members.items():
            if (member.variant, member.seed) == (variant, seed):
                return title
        return None

    def _zeros(self) -> Tensor:
        return torch.zeros(1, *self.preparation.shape)


def open_network(member: Member, *, trust: Sequence[str] = ()) -> nn.Module:
    """The network of a checkpoint, in eval mode.

    Some studies' files don't say how the network is built, torchvision's among them, but name the
    backbone, which does.

    Raises:
        ValueError: the network can't be built, or only by code that is not trusted.
    """
    name = member.facts.get("backbone")
    if describe(member.path)["recipe"] is not None or name is None:
        return load(member.path, trust=trust).eval()
    package = name.partition(":")[0].partition(".")[0]
    if ":" in name and package not in trust:
        raise ValueError(
            f"{member.path} is of the backbone {name}, which is code of yours: --trust {package} "
            "lets it run"
        )
    backbone = Backbone(
        name,
        classes=len(member.facts["classes"]),
        in_channels=member.facts["shape"][0],
        ndim=len(member.facts["shape"]) - 1,
    )
    network = backbone.build(seed=0, width=member.facts["width"])
    return load(member.path, into=network).eval()
