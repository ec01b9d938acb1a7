"""Every setting a run has: one frozen dataclass per stage, TOML in and out."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

import tomli_w

from ayatori.errors import AyatoriError


@dataclass(frozen=True)
class DataRecipe:
    """How the rows are read."""

    # columns of a table, "" = the last one; or the part of a folder's paths that tells the label
    target: str | tuple[str, ...] = ""
    task: Literal["auto", "classification", "multilabel", "regression"] = "auto"
    log_target: bool = False  # learn the logarithms of positive numbers
    groups: str = ""  # column, or part of a path: rows that share its value stay together
    time: str = ""  # column, or part of a path: earlier rows train, later rows are scored
    ids: str = ""  # column that names the rows
    drop: tuple[str, ...] = ()  # columns to leave out
    texts: tuple[str, ...] = ()  # columns that are read as texts, however short they are
    rarest: int = 0  # classes of fewer development rows are left out
    encoding: str = ""  # of tables that are not UTF-8, such as cp932
    # columns of a table beside the files that it names, which are learned from too; "all" = all others
    beside: tuple[str, ...] = ()
    pictures: str = ""  # folder of the pictures that a column of the table names; "" = near the table
    size: int = 0  # side of the square pictures in pixels, 0 = from the pictures
    seen: int = 0  # the same, where nothing is said, as a pretrained network sees them
    colour: Literal["auto", "rgb", "grey"] = "auto"
    crop: float = 0.0  # the square in the middle, as a share of the shorter side; 0 = all, squeezed
    resample: Literal["bilinear", "bicubic"] = "bilinear"
    bits: int = 0  # that pictures of 16 bits use, 0 = from the pictures
    strict: bool = False  # refuse a broken picture instead of skipping it
    sound_seconds: float = 0.0  # of a recording that are heard, 0 = from the recordings
    sound_hertz: float = 0.0  # the highest pitch that is heard, 0 = from the recordings
    scan_window: str = ""  # "LOW,HIGH": values of scans that are told apart; "own": each scan's; "" decides
    scan_mm: float = 0.0  # size of a voxel that scans are read at, 0 = from the scans
    series: str = ""  # "row": each row is a series; or the column that names the series of a row, a step
    series_steps: int = 0  # longer series are averaged down to so many steps, 0 = to 2048
    memory_gb: float = 2.0  # decoded pictures above this size are memory-mapped


@dataclass(frozen=True)
class PlanRecipe:
    """Who learns from which row."""

    strategy: Literal["kfold", "holdout", "rotate"] = "kfold"
    test: float | str = 0.2  # sealed share, or a file or folder
    folds: int = 5
    repeats: int = 1
    stop: float = 0.1  # share of a member's own rows that tells it when to stop
    splitter: Any = None  # any scikit-learn splitter (Python only)


@dataclass(frozen=True)
class ExploreRecipe:
    """What is looked at before training."""

    look: bool = True  # at the head of a run
    target_accuracy: float = 0.0  # (R2 of numbers) that the verdict is asked about; 0 = none
    maps: bool = True  # PCA, t-SNE and UMAP
    look_rows: int = 10_000  # that quick models learn from and are judged on
    look_seconds: float = 60.0  # of one core, for the maps; more rows than fit are placed among the others
    permutations: int = 1999  # of the labels, to see whether they have structure at all


@dataclass(frozen=True)
class NetRecipe:
    """Which network.

    ``name``: auto, mlp, linear, cnn; for series gru, lstm or transformer, too; ``package:factory``, or a
    callable or module.
    """

    name: str | Callable[..., Any] = "auto"
    activation: str = ""  # any class of torch.nn; "" = the network's own
    options: Mapping[str, Any] = field(default_factory=dict)  # passed to the network's builder


@dataclass(frozen=True)
class PretrainedRecipe:
    """What the network has learned elsewhere, and how much of that learns on.

    ``name``: efficientnet_lite0, any network of timm, NAME=FILE with weights, a folder in timm's format, or
    an Ayatori run. ``finetune``: none (a new head on what the frozen network says), last or last:N (its last
    parts learn too), all, or auto (none and last, whichever is better out of fold). With all, the CNN of a
    run goes on as a whole behind a fresh last layer, unless ``tune_rate`` asks for rates by part.
    """

    name: str = ""  # "" = nothing
    finetune: str = "none"
    views: int = 4  # of each row, where a frozen network meets an augmentation
    advise: bool = True  # judge, before training, whether the source is close enough
    tune_rate: float = 0.0  # learning rate of the pretrained part next to the head; 0 = decided
    tune_decay: float = 0.8  # that of each part before another, as a share of the next one's


@dataclass(frozen=True)
class LossRecipe:
    """What is minimised: auto, cross_entropy, focal, binary, mse, mae, huber, quantile; or a callable."""

    name: str | Callable[..., Any] = "auto"
    label_smoothing: float = -1.0  # -1 = the network's own default
    # one per class, in the order of the classes, or by their names (others weigh 1)
    class_weights: tuple[float, ...] | Mapping[str, float] = ()
    gamma: float = 2.0  # focal
    delta: float = 1.0  # huber, in standard deviations of the target
    quantile: float = 0.5


@dataclass(frozen=True)
class BalanceRecipe:
    """What is done about rows that are rare: by their class, by each label, or by the density of numbers.

    ``name``: none, weight (they count more in the loss) or sample (they are drawn more often).
    """

    name: str = "none"
    balance_rule: Literal["inverse", "effective"] = "inverse"  # one over frequency, or effective number
    balance_strength: float = 1.0  # 1: all classes count the same; 0.5: half way, in logarithms
    balance_beta: float = 0.999  # of the effective number
    balance_shares: Mapping[str, float] = field(default_factory=dict)  # of what is learned, by class; 0 to 1
    balance_correct: bool = True  # probabilities are led back to the true shares
    balance_both: bool = False  # sample, although class weights are given too
    balance_price: bool = True  # the folds are trained once more without it, to show what it gave and took


@dataclass(frozen=True)
class DecideRecipe:
    """How probabilities become a label: the likeliest, or by thresholds.

    ``name``: auto (as the network was trained, where it was balanced, else likely), likely, or the figure
    that thresholds are chosen for, on stop rows: accuracy, balanced_accuracy or macro_f1.
    """

    name: str = "auto"
    costs: Mapping[str, float] = field(default_factory=dict)  # "cat>dog" = 10: a cat called dog; others 1


@dataclass(frozen=True)
class TrainRecipe:
    """How a member learns. Zeros mean "decide from the data"; recipe.toml holds what was decided."""

    epochs: int = 0
    batch_size: int = 0
    learning_rate: float = 0.0
    weight_decay: float = -1.0
    warmup: float = -1.0  # share of all steps
    beta2: float = 0.0  # AdamW's second decay
    clip: float = 1.0  # largest gradient norm of a member; 0 = no clipping
    patience: int = 0  # epochs without improvement
    min_delta: float = 1e-4  # absolute
    keep: Literal["auto", "best", "last"] = "auto"  # epoch: that of the lowest stop loss, or the last one
    augment: Any = "default"  # none, light, ...; settings; a transform; auto: compare some
    tta: int = 1  # views of each picture that are averaged when it is predicted
    solver: Literal["auto", "steps", "exact"] = "auto"  # exact: of a linear head on frozen features
    device: str = "auto"
    checkpoint_seconds: float = 10.0


@dataclass(frozen=True)
class EngineRecipe:
    """How members run together: their time depends on it, their weights only beyond the fifth digit.

    Zeros and "auto" are decided by a rule from the network and the machine; recipe.toml holds what was
    decided, and ``why``.
    """

    mode: Literal["auto", "stacked", "turns"] = "auto"  # members as one network, or one after another
    threads: int = 0  # stacks (or members) that step at the same time, one core each
    workers: int = 0  # processes that share the members and the data
    together: int = 0  # members that are in memory at the same time
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of matrix products
    layout: Literal["auto", "channels_last", "contiguous"] = "auto"  # of pictures
    tune: bool = False  # try the choices on real batches, and take the fastest
    why: str = ""


@dataclass(frozen=True)
class EnsembleRecipe:
    """What is made of many networks.

    ``kinds``: mean, majority, median (of numbers), weighted, greedy, bagging, boosting, stacking.
    """

    kinds: tuple[str, ...] = ("mean",)
    bags: int = 10  # bootstrap samples in each fold
    bag_share: float = 1.0  # their size, as a share of a fold's own training rows
    bag_stratified: bool = True  # every class in its proportion
    bag_features: float = 1.0  # share of a table's columns that a bag may look at
    rounds: int = 10  # of boosting, at most
    boost: Literal["auto", "samme", "samme.r", "r2", "gradient"] = "auto"
    boost_threshold: float = 0.01  # ends when the weighted training loss is below
    boost_patience: int = 3  # rounds without a gain on the stop rows
    boost_rate: float = 0.0  # how much a round counts; 0 = 0.3 for gradient, else 1
    boost_depth: int = 0  # hidden layers of a weaker network; 0 = the run's own
    boost_width: int = 0  # their width
    boost_epochs: int = 0  # its epochs
    stack_nets: tuple[str, ...] = ("linear",)  # networks that stand beside the run's own
    stack_rivals: tuple[str, ...] = ("linear", "neighbours", "boosting")
    stack_model: Any = "auto"  # auto, logistic, network, package:class, or a scikit-learn estimator
    stack_inputs: bool = False  # the last model sees the inputs too
    distill: bool = False  # one network that learns what the chosen ensemble says


@dataclass(frozen=True)
class EvaluateRecipe:
    """Who the network is compared with."""

    baselines: tuple[str, ...] = ("majority", "linear", "neighbours", "boosting")
    baseline_rows: int = 0  # the rivals learn from at most so many rows of a fold; 0 = from what is quick


@dataclass(frozen=True)
class Recipe:
    """All settings of a run.

    >>> recipe = Recipe(seed=1, plan=PlanRecipe(folds=3))
    >>> from_toml(to_toml(recipe)) == recipe
    True
    """

    data: DataRecipe = DataRecipe()
    plan: PlanRecipe = PlanRecipe()
    explore: ExploreRecipe = ExploreRecipe()
    net: NetRecipe = NetRecipe()
    pretrained: PretrainedRecipe = PretrainedRecipe()
    loss: LossRecipe = LossRecipe()
    balance: BalanceRecipe = BalanceRecipe()
    decide: DecideRecipe = DecideRecipe()
    train: TrainRecipe = TrainRecipe()
    engine: EngineRecipe = EngineRecipe()
    ensemble: EnsembleRecipe = EnsembleRecipe()
    evaluate: EvaluateRecipe = EvaluateRecipe()
    preset: Literal["quick", "good", "best"] = "good"
    seed: int = 0
    time_limit: float = 0.0  # seconds for training, 0 = none


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """A hint for a typo: ``"; did you mean 'x'?"`` or an empty string."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML. A callable is written as ``module:name``; a splitter cannot be written."""
    how = recipe.train.augment
    if callable(how) and "<" in getattr(how, "__qualname__", "<"):
        raise AyatoriError(
            "a run folder holds a transform's name alone, so it must be a function that can be imported, "
            f"however: {how!r}; name one that makes it (package:function), or keep the run in memory"
        )
    return tomli_w.dumps(_plain(recipe))


def from_toml(text: str) -> Recipe:
    """The recipe that ``text`` describes; what it leaves out keeps its default.

    >>> from_toml("[train]\\nepoch = 3")
    Traceback (most recent call last):
    ayatori.errors.AyatoriError: recipe: unknown setting 'train.epoch'; did you mean 'epochs'?
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AyatoriError(f"recipe must be valid TOML, however: {error}") from None
    return _record(Recipe, values, "")


LISTS = ("kinds", "stack_nets", "stack_rivals")  # one of which may be given alone


def from_flat(values: Mapping[str, Any]) -> Recipe:
    """The recipe of settings that are named without their stage; ``net`` and ``loss`` may be objects.

    >>> from_flat({"net": "mlp", "folds": 3, "seed": 1}).plan.folds
    3
    """
    kinds = get_type_hints(Recipe)
    stages = {name: kind for name, kind in kinds.items() if dataclasses.is_dataclass(kind)}
    place = {f.name: stage for stage, kind in stages.items() for f in dataclasses.fields(kind)}
    nested: dict[str, Any] = {stage: {} for stage in stages}
    own = {stage: values[stage] for stage in ("net", "loss") if not isinstance(values.get(stage, ""), str)}
    for name, value in values.items():
        name = "kinds" if name == "ensemble" else name
        if name in LISTS:
            value = (value,) if isinstance(value, str) else tuple(value)
        value = value.item() if hasattr(value, "item") else value  # a number of NumPy's
        if name in stages and name not in own:
            nested[name]["name"] = value
        elif name in place:
            nested[place[name]][name] = value
        elif name not in own:
            nested[name] = value
    recipe = _record(Recipe, nested, "")
    for stage, value in own.items():
        recipe = change(recipe, stage, name=value)
    return recipe


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe file."""
    try:
        return from_toml(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AyatoriError(f"recipe '{path}' must be a file, however it does not exist") from None


def change(recipe: Recipe, stage: str, **values: Any) -> Recipe:
    """A copy with some settings of one stage changed.

    >>> change(Recipe(), "plan", folds=3).plan.folds
    3
    """
    return dataclasses.replace(recipe, **{stage: dataclasses.replace(getattr(recipe, stage), **values)})


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: _plain(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if callable(value) or not isinstance(value, str | int | float | bool):
        _check_named(value)
        named = value if hasattr(value, "__qualname__") else type(value)
        return f"{named.__module__}:{named.__qualname__}"
    return value


def _check_named(value: Any) -> None:
    """Refuse a scikit-learn estimator whose name alone does not say how it was set."""
    settings = getattr(value, "get_params", None)
    if settings and not isinstance(value, type) and repr(settings()) != repr(type(value)().get_params()):
        raise AyatoriError(
            f"a run folder holds a model's name alone, so it must have its defaults, however: {value!r}; "
            "keep the run in memory (no out), or name a class of your own"
        )


def _record(kind: type, values: Mapping[str, Any], prefix: str) -> Any:
    types = get_type_hints(kind)
    arguments = {}
    for name, value in values.items():
        if name not in types:
            raise AyatoriError(f"recipe: unknown setting '{prefix}{name}'{nearest(name, list(types))}")
        if dataclasses.is_dataclass(types[name]):
            if not isinstance(value, Mapping):
                raise AyatoriError(
                    f"recipe: '{prefix}{name}' must be a table of settings, however: {value!r}"
                )
            arguments[name] = _record(types[name], value, f"{prefix}{name}.")
        else:
            arguments[name] = _checked(f"{prefix}{name}", value, getattr(kind(), name))
    return kind(**arguments)


def _checked(name: str, value: Any, default: Any) -> Any:
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    accepted: tuple[type, ...] = (type(default),)
    if name == "data.target":
        accepted = (str, tuple)
    elif name == "plan.test":
        accepted = (float, str)
    elif name == "loss.class_weights":
        accepted = (tuple, Mapping)
    elif default is None or isinstance(default, Mapping) or name in ("ensemble.stack_model", "train.augment"):
        accepted = (object,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise AyatoriError(
            f"recipe: '{name}' must be {' or '.join(t.__name__ for t in accepted)}, however: {value!r}"
        )
    return value
