"""model/: all that ``predict`` needs, as files. Nothing in it is a pickle, and no code is chosen by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch

from ayatori.embed import Frozen
from ayatori.ensemble.stacking import make_last
from ayatori.evaluate import Fitted
from ayatori.model import Model
from ayatori.nets import NetSpec, Network, find_net, lay_out, rebuild
from ayatori.nets.source import load_state, source_of, state_of
from ayatori.recipe import NetRecipe
from ayatori.records import AyatoriError, Group, Last, Schema, Task, Vote
from ayatori.store import RunFolder, digest
from ayatori.train import pick_device

FORMAT = 3
READABLE = (1, 2, 3)  # 1 had no vote, 2 neither rule nor views
# what our rivals and scikit-learn's usual estimators are made of, besides what skops trusts already
TRUSTED = (
    "ayatori.ensemble.say.evidence",
    "ayatori.ensemble.stacking.Labels",
    "ayatori.evaluate.baselines.Trees",
    "ayatori.evaluate.encode.Meanings",
    "ayatori.evaluate.encode.Terms",
    "functools.partial",
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.metrics._dist_metrics.EuclideanDistance32",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils.validation.check_array",
)


def check_last(model: Any, task: Task) -> None:
    """Refuse a last model of a stack that could not be written, before anything is trained."""
    estimator = make_last(model, task, 1)
    if estimator is not None:
        _written(estimator)


def save_model(model: Model, folder: RunFolder, place: str = "model") -> None:
    """Write ``place``/ in a run folder; the list of its files last."""
    files = []
    for number, network in enumerate(model.networks):
        name = f"{number:03d}.safetensors"
        folder.write_tensors(f"{place}/{name}", network.state_dict(), {})
        files.append(
            {
                "name": name,
                "digest": digest((folder.path / place / name).read_bytes()),
                "network": dataclasses.asdict(network.spec),
            }
        )
    source = None
    if (passed := model.passed) is not None:
        name = "source.safetensors"
        last = None if passed.heads else passed.cut
        folder.write_tensors(f"{place}/{name}", state_of(passed.source, 0, last), {})
        source = {"file": name, "digest": digest((folder.path / place / name).read_bytes())}
    rivals = [
        {**_sealed(folder, place, f"rival-{number:03d}.skops", rival.model)}
        | {name: getattr(rival, name) for name in ("name", "task", "codes", "shares")}
        for number, rival in enumerate(model.rivals)
    ]
    folder.write_json(
        f"{place}/model.json",
        {
            "format": FORMAT,
            "name": model.name,
            "schema": dataclasses.asdict(model.schema),
            "files": files,
            "vote": None if model.vote is None else _vote_facts(model.vote, folder, place),
            "rivals": rivals,
            "source": source,
            "rule": None if model.rule is None else model.rule.tolist(),
            "tta": list(model.tta),
        },
    )


def _sealed(folder: RunFolder, place: str, name: str, estimator: Any) -> dict[str, str]:
    """A scikit-learn estimator as a file; none where there is none."""
    if estimator is None:
        return {"file": "", "digest": ""}
    content = _written(estimator)
    folder.write_bytes(f"{place}/{name}", content)
    return {"file": name, "digest": digest(content)}


def _written(estimator: Any) -> bytes:
    """The estimator as skops writes it; refused where reading it again would have to trust foreign code."""
    import skops.io

    try:
        content = skops.io.dumps(estimator)
        foreign = sorted(set(skops.io.get_untrusted_types(data=content)) - set(TRUSTED))
    except Exception as error:  # an estimator of the user's own may hold anything
        foreign = [str(error)]
    if foreign:
        raise AyatoriError(
            f"a model on disk must be of scikit-learn's own parts, however {type(estimator).__name__} holds "
            f"{foreign[0]}; choose another stack_model, or keep the run in memory"
        )
    return content


def _vote_facts(vote: Vote, folder: RunFolder, place: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"groups": [dataclasses.asdict(group) for group in vote.groups], "last": None}
    if vote.last is not None:
        last = vote.last
        facts["last"] = {"weights": last.weights, "bias": last.bias, "inputs": last.inputs}
        facts["last"] |= _sealed(folder, place, "last.skops", last.model)
    return facts


def load_model(path: str | Path, net: Any = None, device: str = "auto") -> Model:
    """Read ``RUN/model`` (or ``RUN``). ``net``: the user's own factory or module, where the run had one.

    A folder from elsewhere is refused when a file is missing, added or changed. Code is never chosen by
    the folder: a network of the user's own has to be named again.
    """
    path = Path(path)
    path = path / "model" if (path / "model").is_dir() else path
    if not (path / "model.json").is_file():
        raise AyatoriError(
            f"'{path}' must be a model folder, however it has no model.json; is the run complete?"
        )
    facts = RunFolder(path).read_json("model.json")
    try:
        if facts["format"] not in READABLE:
            raise AyatoriError(f"'{path}' must have format {FORMAT}, however: {facts['format']!r}")
        files = {str(item["name"]): item for item in facts["files"]}
        said = facts.get("vote")
        others = [*facts.get("rivals", ()), *([said["last"]] if said and said["last"] else [])]
        others += [facts["source"]] if facts.get("source") else []
        _check_files(path, [*files, *(str(item["file"]) for item in others if item["file"])])
        schema = schema_from(facts["schema"])
        networks = tuple(
            _network(path / name, item, net).to(pick_device(device)) for name, item in files.items()
        )
        rivals = tuple(
            Fitted(
                item["name"], item["task"], _opened(path, item), tuple(item["codes"]), tuple(item["shares"])
            )
            for item in facts.get("rivals", ())
        )
        frozen = _frozen(path, facts["source"], schema) if facts.get("source") else None
        vote = _vote(path, said) if said else None
        rule = None if facts.get("rule") is None else np.array(facts["rule"], float)
        how, number = facts.get("tta", ("none", 1))
        return Model(facts["name"], schema, networks, vote, rivals, frozen, device, rule, (how, int(number)))
    except (KeyError, TypeError, AttributeError) as error:
        raise AyatoriError(f"'{path / 'model.json'}' must describe a model, however: {error!r}") from None


def schema_from(facts: Mapping[str, Any]) -> Schema:
    """A schema from its JSON values."""
    values: dict[str, Any] = {
        name: tuple(item) if isinstance(item, list) else item for name, item in facts.items()
    }
    for kind in ("categories", "texts"):
        values[kind] = {name: tuple(items) for name, items in facts.get(kind, {}).items()}
    return Schema(**values)


def _vote(path: Path, facts: Mapping[str, Any]) -> Vote:
    groups = tuple(
        Group(tuple(g["voices"]), tuple(g["weights"]), g["how"], tuple(g["start"])) for g in facts["groups"]
    )
    last = facts["last"]
    if last is None:
        return Vote(groups)
    model = _opened(path, last)
    return Vote(groups, Last(tuple(last["weights"]), tuple(last["bias"]), model, bool(last["inputs"])))


def _opened(path: Path, item: Mapping[str, Any]) -> Any:
    """The estimator in a file that the run wrote; only parts that are known to be harmless are made."""
    if not item["file"]:
        return None
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    content = (path / item["file"]).read_bytes()
    if digest(content) != item["digest"]:
        raise AyatoriError(
            f"'{path / item['file']}' must be as the run wrote it, however its content has changed"
        )
    try:
        return skops.io.loads(content, trusted=list(TRUSTED))
    except UntrustedTypesFoundException as error:
        raise AyatoriError(
            f"'{path / item['file']}' must hold scikit-learn's own parts, however: {error}"
        ) from None


def _check_files(path: Path, files: Sequence[str]) -> None:
    for name in files:
        if Path(name).name != name:
            raise AyatoriError(f"files of a model must lie in its folder, however: {name!r}")
        if not (path / name).is_file():
            raise AyatoriError(f"the model '{path}' must hold {name}, however it is missing")
    extra = sorted({item.name for item in path.iterdir()} - set(files) - {"model.json"})
    if extra:
        raise AyatoriError(
            f"the model '{path}' must hold only its own files, however there is also {extra[0]!r}"
        )


def _frozen(path: Path, item: Mapping[str, Any], schema: Schema) -> Frozen:
    """The frozen part that the model's networks stand on, with the weights that the run wrote."""
    content = (path / item["file"]).read_bytes()
    if digest(content) != item["digest"]:
        raise AyatoriError(
            f"'{path / item['file']}' must be as the run wrote it, however its content has changed"
        )
    assert schema.source is not None
    source = source_of(schema.source["facts"])
    try:
        load_state(source, safetensors.torch.load(content))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise AyatoriError(
            f"'{path / item['file']}' must hold the weights of this network, however: {error}"
        ) from None
    return Frozen(source, schema.source["cut"])


def _network(path: Path, item: Mapping[str, Any], net: Any) -> Network:
    content = path.read_bytes()
    if digest(content) != item["digest"]:
        raise AyatoriError(f"'{path}' must be as the run wrote it, however its content has changed")
    spec = NetSpec(**item["network"])
    own = None
    if ":" in spec.name:
        if net is None:
            raise AyatoriError(
                f"the network {spec.name!r} is your own code; name it again with --net {spec.name}"
            )
        own = find_net(NetRecipe(name=net), "image" if "image" in spec.sizes else "table")[1]
    network = rebuild(spec, own)
    if "image" in spec.sizes:
        lay_out(network)
    try:
        network.load_state_dict(safetensors.torch.load(content))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise AyatoriError(f"'{path}' must hold the weights of this network, however: {error}") from None
    return network.eval()
