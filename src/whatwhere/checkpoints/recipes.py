"""How a network is built, as a checkpoint may say it: the name of a callable, and its arguments.

A file is not code, and must not be able to run any. A name in it is called only if it is a known
library's builder of networks, or of a package that the caller trusts; and never with an argument
that would read another file or download one.
"""

import importlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from whatwhere.surgery import attached, reattach

# Arguments that fetch weights, and what turns them off. The checkpoint has the weights.
FETCHING = {
    "weights": None,
    "weights_backbone": None,
    "encoder_weights": None,
    "pretrained": False,
    "checkpoint_path": "",
    "cache_dir": None,
}
LABELS = ("id2label", "label2id")  # in configurations of transformers: words of any kind
LIBRARIES = (
    "torchvision.models",
    "timm.create_model",
    "segmentation_models_pytorch",
    "monai.networks.nets",
    "transformers",
    "whatwhere.paper.networks",
    "whatwhere.study.networks",
)


@dataclass(frozen=True)
class Recipe:
    """A network's builder and its keyword arguments.

    Args:
        network: the dotted name of a class or function: "torchvision.models.resnet18".
        arguments: its arguments, of JSON's types. A model class of transformers is given the
            fields of its configuration, {"config": {...}}.
    """

    network: str
    arguments: Mapping[str, Any]

    def build(self, *, trust: Sequence[str] = ()) -> nn.Module:
        """The network with new weights, none fetched.

        Raises:
            ValueError: the name is not trusted or not found, an argument would fetch something,
                or what it built is no network.
        """
        builder = _builder(self.network, trust)
        arguments = dict(self.arguments)
        if not trusted(self.network, trust):
            _check_arguments(self.network, arguments)
        for name in inspect.signature(builder).parameters:
            if name in FETCHING:
                arguments.setdefault(name, FETCHING[name])
        if _is_hugging_face(builder) and isinstance(arguments.get("config"), Mapping):
            arguments["config"] = builder.config_class.from_dict(dict(arguments["config"]))
        try:
            with torch.random.fork_rng(devices=[]):
                model = builder(**arguments)
        except Exception as error:  # whatever a builder may raise on arguments that don't fit it
            raise ValueError(
                f"expected {self.network}(**{arguments}) to build a network, got "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(model, nn.Module):
            raise ValueError(
                f"expected {self.network} to build a torch.nn.Module, got {type(model).__name__}"
            )
        return model

    def check(self, model: nn.Module, *, trust: Sequence[str] = ()) -> None:
        """Refuse a recipe of another network than this one, which may have gates.

        Raises:
            ValueError: what it builds has other modules, keys, shapes, settings or hooks.
        """
        with torch.random.fork_rng(devices=[]):
            try:
                with torch.device("meta"):
                    built = self.build(trust=trust)
            except ValueError:  # some builders compute with values
                built = self.build(trust=trust)
            try:
                reattach(built, attached(model))
                difference = next(_differences(model, built), None)
            except ValueError as error:
                difference = str(error)
        if difference is not None:
            raise ValueError(
                f"{self.network}(**{dict(self.arguments)}) builds another network than the one to "
                f"be saved: {difference}"
            )


def infer(model: nn.Module) -> Recipe | None:
    """The recipe of a network whose library notes down how it was built: timm, transformers.

    None where there is no note, or the network is not what the note says.
    """
    recipe = None
    noted = getattr(model, "pretrained_cfg", None)
    config = getattr(model, "config", None)
    if isinstance(noted, dict) and isinstance(noted.get("architecture"), str):
        first = next((m for m in model.modules() if hasattr(m, "in_channels")), None)
        arguments = {"model_name": noted["architecture"]}
        for name, value in (
            ("num_classes", getattr(model, "num_classes", None)),
            ("in_chans", getattr(first, "in_channels", None)),
        ):
            if isinstance(value, int):
                arguments[name] = value
        recipe = Recipe("timm.create_model", arguments)
    elif config is not None and _is_hugging_face(type(model)):
        fields = json.loads(config.to_json_string(use_diff=False))
        fields = {name: value for name, value in fields.items() if not name.startswith("_")}
        recipe = Recipe(f"transformers.{type(model).__name__}", {"config": fields})
    if recipe is None:
        return None
    try:
        recipe.check(model)
    except ValueError:
        return None
    return recipe


def trusted(name: str, packages: Sequence[str]) -> bool:
    """Whether a dotted name is one of these, or in one of them."""
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def _builder(name: str, trust: Sequence[str]) -> Any:
    if isinstance(trust, str):
        raise ValueError(f"expected trust to be a list of packages, got {trust!r}")
    package, _, attribute = name.rpartition(".")
    if not (trusted(name, LIBRARIES) or trusted(name, trust)):
        raise ValueError(
            f"refused to call {name}: a checkpoint may name networks of {', '.join(LIBRARIES)}. If "
            f"you trust this one, pass trust=[{name.partition('.')[0]!r}], or a network, into=..."
        )
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise ValueError(f"{name} can't be imported here: {error}") from error
    found = vars(module).get(attribute)
    if found is None and isinstance(module, ModuleType):
        found = getattr(module, attribute, None)  # transformers imports on first use
    if not callable(found):
        raise ValueError(f"expected {package} to have a function or class {attribute}, found none")
    if not trusted(name, trust) and not _is_network_builder(name, found):
        raise ValueError(
            f"refused to call {name}: it is in a known library, and no builder of networks"
        )
    return found


def _is_network_builder(name: str, found: Any) -> bool:
    library = name.partition(".")[0]
    own = getattr(found, "__module__", "").partition(".")[0] == library
    if library == "torchvision":
        models = importlib.import_module("torchvision.models")
        if any(models.get_model_builder(each) is found for each in models.list_models()):
            return True
    if name == "timm.create_model":
        return own
    if library == "monai" and inspect.isfunction(found):
        return own and found.__module__.startswith("monai.networks.nets.")
    return own and inspect.isclass(found) and issubclass(found, nn.Module)


def _check_arguments(network: str, value: Any, name: str = "") -> None:
    """Refuse what would have a builder of a known library read or fetch something."""
    fetches = bool(value) and (name in FETCHING or "pretrained" in name)
    # A folder, an address, or a repository on a hub, which may hold code.
    elsewhere = isinstance(value, str) and bool(set(value) & set(r"/\:"))
    if fetches or elsewhere:
        raise ValueError(
            f"refused to call {network} with {name}={value!r}, which could fetch something: the "
            "checkpoint has the weights; leave it out, or pass a network, into=..."
        )
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key not in LABELS:
                _check_arguments(network, each, str(key))
    elif isinstance(value, list | tuple):
        for each in value:
            _check_arguments(network, each, name)


def _is_hugging_face(builder: Any) -> bool:
    return inspect.isclass(builder) and any(
        each.__name__ == "PreTrainedModel" and each.__module__ == "transformers.modeling_utils"
        for each in builder.__mro__
    )


def _differences(model: nn.Module, built: nn.Module) -> Iterator[str]:
    """What makes two networks different functions of the same weights, as far as can be seen."""
    mine, theirs = dict(model.named_modules()), dict(built.named_modules())
    for name in {**mine, **theirs}:
        kinds = [_kind(each.get(name)) for each in (mine, theirs)]
        if kinds[0] != kinds[1]:
            yield f"{name} is a {kinds[0]}, and would be a {kinds[1]}"
            return
    shapes = [{k: tuple(t.shape) for k, t in each.state_dict().items()} for each in (model, built)]
    for name in {**shapes[0], **shapes[1]}:
        if shapes[0].get(name) != shapes[1].get(name):
            yield f"{name} is {shapes[0].get(name)}, and would be {shapes[1].get(name)}"
    for name, module in mine.items():
        settings, others = _settings(module), _settings(theirs[name])
        for key in settings.keys() & others.keys():
            if repr(settings[key]) != repr(others[key]):
                where = f"{name}.{key}".lstrip(".")
                yield f"{where} is {settings[key]!r}, and would be {others[key]!r}"
        if _hooks(module) != _hooks(theirs[name]):
            yield f"{name if name else 'the network'} has hooks of yours, and would have none"


def _kind(module: nn.Module | None) -> str:
    if module is None:
        return "missing module"
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and type(module).__module__.startswith(
        "torch.nn."
    ):
        return "batch norm"  # synchronised or not
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _settings(module: nn.Module) -> dict[str, Any]:
    plain = (bool, int, float, str, tuple, type(None))
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, plain)
        and not name.startswith("_")
        and name not in ("training", "name_or_path")
    }


def _hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks)
