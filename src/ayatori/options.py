"""The options of ``ayatori run``, and the recipe that options make."""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import (
    MissingArgumentError,
    Parameter,
    RepeatArgumentError,
    UnusedCliTokensError,
    ValidationError,
)

from ayatori.errors import AyatoriError
from ayatori.look_options import ExploreOptions
from ayatori.recipe import Recipe, change, read_recipe

# option -> the stage of the recipe that it belongs to, and its name there
STAGES: dict[str, tuple[str, str]] = {
    "target": ("data", "target"),
    "task": ("data", "task"),
    "log_target": ("data", "log_target"),
    "groups": ("data", "groups"),
    "time": ("data", "time"),
    "ids": ("data", "ids"),
    "drop": ("data", "drop"),
    "texts": ("data", "texts"),
    "rarest": ("data", "rarest"),
    "encoding": ("data", "encoding"),
    "pictures": ("data", "pictures"),
    "beside": ("data", "beside"),
    "size": ("data", "size"),
    "sound_seconds": ("data", "sound_seconds"),
    "sound_hertz": ("data", "sound_hertz"),
    "scan_window": ("data", "scan_window"),
    "scan_mm": ("data", "scan_mm"),
    "series": ("data", "series"),
    "series_steps": ("data", "series_steps"),
    "strict": ("data", "strict"),
    "test": ("plan", "test"),
    "folds": ("plan", "folds"),
    "repeats": ("plan", "repeats"),
    "strategy": ("plan", "strategy"),
    "net": ("net", "name"),
    "pretrained": ("pretrained", "name"),
    "finetune": ("pretrained", "finetune"),
    "views": ("pretrained", "views"),
    "advise": ("pretrained", "advise"),
    "activation": ("net", "activation"),
    "loss": ("loss", "name"),
    "class_weights": ("loss", "class_weights"),
    "augment": ("train", "augment"),
    "tta": ("train", "tta"),
    "balance": ("balance", "name"),
    "balance_rule": ("balance", "balance_rule"),
    "balance_strength": ("balance", "balance_strength"),
    "balance_shares": ("balance", "balance_shares"),
    "balance_both": ("balance", "balance_both"),
    "balance_price": ("balance", "balance_price"),
    "decide": ("decide", "name"),
    "costs": ("decide", "costs"),
    "epochs": ("train", "epochs"),
    "batch_size": ("train", "batch_size"),
    "learning_rate": ("train", "learning_rate"),
    "device": ("train", "device"),
    "mode": ("engine", "mode"),
    "threads": ("engine", "threads"),
    "workers": ("engine", "workers"),
    "together": ("engine", "together"),
    "dtype": ("engine", "dtype"),
    "layout": ("engine", "layout"),
    "tune": ("engine", "tune"),
    "ensemble": ("ensemble", "kinds"),
    "bags": ("ensemble", "bags"),
    "bag_share": ("ensemble", "bag_share"),
    "bag_features": ("ensemble", "bag_features"),
    "rounds": ("ensemble", "rounds"),
    "boost": ("ensemble", "boost"),
    "boost_threshold": ("ensemble", "boost_threshold"),
    "boost_depth": ("ensemble", "boost_depth"),
    "boost_width": ("ensemble", "boost_width"),
    "boost_epochs": ("ensemble", "boost_epochs"),
    "stack_nets": ("ensemble", "stack_nets"),
    "stack_rivals": ("ensemble", "stack_rivals"),
    "stack_model": ("ensemble", "stack_model"),
    "stack_inputs": ("ensemble", "stack_inputs"),
    "distill": ("ensemble", "distill"),
    "baselines": ("evaluate", "baselines"),
    "look": ("explore", "look"),
    "target_accuracy": ("explore", "target_accuracy"),
}

OUT = Parameter(name=["--out", "-o"])
ENGINE = Parameter(group="Speed")
ENSEMBLE = Parameter(group="Ensembles")
BALANCE = Parameter(group="Rare classes")
LISTS = ("drop", "texts", "beside", "ensemble", "stack_nets")  # with commas between
OR_NONE = ("baselines", "stack_rivals")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What can be said on the command line; what is not said is decided from the data.

    Parameters
    ----------
    target
        The column to predict (several, with commas; a name that has one in quotes); by default the last one.
        Of a folder without a subfolder per class, the part of the paths that tells the label (1: cat in
        cat_7.png), or a pattern.
    test
        A file or folder of test rows, or COLUMN=VALUE of a table, or the share of rows to seal (0.2); 0 for
        none. A column that says train and test is found.
    folds
        Folds of the cross-validation (5); 1 trains one network on a hold-out split.
    net
        mlp, linear, cnn; for series gru, lstm, transformer; or package:factory for one of your own.
    pretrained
        A network that has learned elsewhere: efficientnet_lite0, any of timm, NAME=FILE, a folder in timm's
        format, or an Ayatori run. Its frozen parts see each row once.
    finetune
        none (a new head alone), last or last:N (its last parts learn too), all, or auto (none).
    views
        Views of each picture that a frozen network sees, with --augment (4).
    advise
        Judge before training whether the pretrained network is close enough (--no-advise to leave it out).
    preset
        quick, good or best: how long to train.
    epochs
        The most epochs a network trains.
    batch_size
        Rows of a step.
    learning_rate
        Of a weight matrix, at its highest.
    augment
        How pictures (and rows of tables) vary while networks learn: none, light, digits, sound, standard,
        strong, random, a TOML file, or package:name of a transform of your own. auto compares some (or those
        that are named, with commas) on stop rows. See them first: ayatori augment DATA.
    tta
        Views of each picture that are averaged when it is predicted (1).
    balance
        Rare classes: none, weight (they count more in the loss) or sample (they are drawn more often).
        Probabilities are led back to the true shares.
    balance_rule
        inverse (one over frequency) or effective (one over the effective number of rows).
    balance_strength
        1: all classes count the same; 0.5: half way, in logarithms (1).
    balance_shares
        The share of what is learned that classes shall have: class=share, with commas; others part the rest.
    balance_both
        Sample, although class weights are given too.
    balance_price
        Train the folds once more without balance, to show what it gave and took (--no-balance-price).
    decide
        How a label is decided: likely, or the figure that thresholds are chosen for on stop rows: accuracy,
        balanced_accuracy or macro_f1; by default as the networks were balanced.
    costs
        What mistakes cost, as true>said=cost with commas between; others cost 1.
    loss
        cross_entropy, focal, binary, mse, mae, huber or quantile.
    class_weights
        One weight a class, with commas: in the order of the classes, or as class=weight (others 1).
    activation
        Any activation of torch.nn, such as ReLU or Mish.
    strategy
        kfold, holdout, or rotate (train and validation take turns, the best network is kept).
    repeats
        How often the folds are drawn anew (1).
    task
        classification, multilabel or regression, when the target does not tell.
    log_target
        Learn the logarithms of the numbers to predict, where a few are far larger than the others.
    groups
        Column whose rows stay together, such as a patient; of a folder, the part of the paths that tells whom
        a file is of (2: tom in cat/tom_1.png), or a pattern.
    time
        Column that orders the rows: earlier ones train, later ones are scored. Of a folder, the part of the
        paths that tells, as for groups.
    ids
        Column that names the rows.
    drop
        Columns to leave out, with commas.
    texts
        Columns to read as texts, with commas, however short they are; longer ones are found.
    rarest
        Leave out classes of fewer rows, the test's too (0: none).
    encoding
        Of a table that is not UTF-8, such as cp932 or cp1252.
    pictures
        Folder of the files that a column of the table names, with or without their ending.
    beside
        Columns of the table to learn from beside the files that it names, with commas; "all": all others.
    size
        Side of the square pictures in pixels, or of scans in voxels.
    sound_seconds
        Of each recording that are heard; decided from their lengths.
    sound_hertz
        The highest pitch that is heard; decided from their sampling rates.
    scan_window
        Values of scans that are told apart, LOW,HIGH; own: each scan's own; decided from the scans.
    scan_mm
        Size of the voxels that scans are read at, in millimetres; decided from the scans.
    series
        Measurements over time: "row", where each row of the table is a series, or the column that names the
        series of each row, a step.
    series_steps
        Longer series are averaged down to so many steps; 2048.
    strict
        Refuse a broken picture, recording or scan instead of skipping it.
    ensemble
        What to make of many networks, with commas: mean, majority, median, weighted, greedy, bagging,
        boosting, stacking (mean). The best by held-out rows is handed over.
    bags
        Bootstrap samples in each fold (10).
    bag_share
        Their size, as a share of the fold's training rows (1).
    bag_features
        Share of a table's columns that a bag may look at (1).
    rounds
        Rounds of boosting, at most (10).
    boost
        samme, samme.r, r2 (numbers) or gradient.
    boost_threshold
        Boosting ends when its weighted training loss is below (0.01).
    boost_depth
        Hidden layers of a weaker network, for boosting.
    boost_width
        Their width.
    boost_epochs
        Its epochs.
    stack_nets
        Networks that stand beside the run's own in a stack, with commas (linear).
    stack_rivals
        Simple rivals that the stack listens to, with commas (linear,neighbours,boosting), or none.
    stack_model
        The last model: auto, logistic, network, or package:class of scikit-learn's kind.
    stack_inputs
        The last model sees the inputs too.
    distill
        Also train one network that learns what the chosen ensemble says.
    baselines
        Rivals to compare with, with commas (majority,linear,neighbours,boosting), or none; also trees and
        perceptron.
    look
        Look at the data before training (--no-look to leave it out).
    target_accuracy
        The accuracy (R2 for numbers) that you need: can it be reached?
    device
        cpu, cuda or mps; by default the fastest there is.
    mode
        How the networks run together: stacked as one, or in turns; decided from their size.
    threads
        Networks (or stacks of them) that step at the same time, a core each.
    workers
        Processes that share the networks and the data (1).
    together
        Networks that are in memory at the same time; by default as many as fit.
    dtype
        float32, or bfloat16 for matrix products; decided from the machine.
    layout
        channels_last or contiguous, for pictures.
    tune
        Time these choices on real batches first, and take the fastest.
    seed
        Every random number follows from it (0).
    time_limit
        Seconds of training.
    recipe
        A TOML file of settings, such as the recipe.toml of a run; options given here win.
    """

    target: str | None = None
    test: str | None = None
    folds: int | None = None
    net: str | None = None
    pretrained: str | None = None
    finetune: str | None = None
    views: int | None = None
    advise: Annotated[bool | None, Parameter(negative="--no-advise")] = None
    preset: Literal["quick", "good", "best"] | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    augment: str | None = None
    tta: int | None = None
    balance: Annotated[str | None, BALANCE] = None
    balance_rule: Annotated[Literal["inverse", "effective"] | None, BALANCE] = None
    balance_strength: Annotated[float | None, BALANCE] = None
    balance_shares: Annotated[str | None, BALANCE] = None
    balance_both: Annotated[bool | None, Parameter(negative=(), group="Rare classes")] = None
    balance_price: Annotated[bool | None, Parameter(negative="--no-balance-price", group="Rare classes")] = (
        None
    )
    decide: Annotated[str | None, BALANCE] = None
    costs: Annotated[str | None, BALANCE] = None
    loss: str | None = None
    class_weights: Annotated[str | None, BALANCE] = None
    activation: str | None = None
    strategy: Literal["kfold", "holdout", "rotate"] | None = None
    repeats: int | None = None
    task: Literal["classification", "multilabel", "regression"] | None = None
    log_target: Annotated[bool | None, Parameter(negative=())] = None
    groups: str | None = None
    time: str | None = None
    ids: str | None = None
    drop: str | None = None
    texts: str | None = None
    rarest: int | None = None
    encoding: str | None = None
    pictures: str | None = None
    beside: str | None = None
    size: int | None = None
    sound_seconds: float | None = None
    sound_hertz: float | None = None
    scan_window: str | None = None
    scan_mm: float | None = None
    series: str | None = None
    series_steps: int | None = None
    strict: Annotated[bool | None, Parameter(negative=())] = None
    ensemble: Annotated[str | None, ENSEMBLE] = None
    bags: Annotated[int | None, ENSEMBLE] = None
    bag_share: Annotated[float | None, ENSEMBLE] = None
    bag_features: Annotated[float | None, ENSEMBLE] = None
    rounds: Annotated[int | None, ENSEMBLE] = None
    boost: Annotated[Literal["auto", "samme", "samme.r", "r2", "gradient"] | None, ENSEMBLE] = None
    boost_threshold: Annotated[float | None, ENSEMBLE] = None
    boost_depth: Annotated[int | None, ENSEMBLE] = None
    boost_width: Annotated[int | None, ENSEMBLE] = None
    boost_epochs: Annotated[int | None, ENSEMBLE] = None
    stack_nets: Annotated[str | None, ENSEMBLE] = None
    stack_rivals: Annotated[str | None, ENSEMBLE] = None
    stack_model: Annotated[str | None, ENSEMBLE] = None
    stack_inputs: Annotated[bool | None, Parameter(negative=(), group="Ensembles")] = None
    distill: Annotated[bool | None, Parameter(negative=(), group="Ensembles")] = None
    baselines: str | None = None
    look: Annotated[bool | None, Parameter(negative="--no-look")] = None
    target_accuracy: float | None = None
    device: str | None = None
    mode: Annotated[Literal["stacked", "turns"] | None, ENGINE] = None
    threads: Annotated[int | None, ENGINE] = None
    workers: Annotated[int | None, ENGINE] = None
    together: Annotated[int | None, ENGINE] = None
    dtype: Annotated[Literal["float32", "bfloat16"] | None, ENGINE] = None
    layout: Annotated[Literal["channels_last", "contiguous"] | None, ENGINE] = None
    tune: Annotated[bool | None, Parameter(negative=(), group="Speed")] = None
    seed: int | None = None
    time_limit: float | None = None
    recipe: Path | None = None


def recipe_of(options: RunOptions | ExploreOptions) -> Recipe:
    """The recipe file that was named, or the defaults, with what was said on the command line on top.

    >>> recipe_of(RunOptions(folds=1, drop="a, b")).plan.strategy
    'holdout'
    """
    recipe = read_recipe(options.recipe) if options.recipe else Recipe()
    for option, (stage, name) in STAGES.items():
        said = getattr(options, option, None)
        if said is not None:
            recipe = change(recipe, stage, **{name: _meant(option, said)})
    if getattr(options, "folds", None) == 1:
        recipe = change(recipe, "plan", strategy="holdout")
    for name in ("preset", "seed", "time_limit"):
        said = getattr(options, name, None)
        if said is not None:
            recipe = dataclasses.replace(recipe, **{name: said})
    return recipe


def _meant(option: str, said: Any) -> Any:
    if option == "target" and "," in said:
        names = _listed(said)
        return names[0] if len(names) == 1 else names
    if option in LISTS or option in OR_NONE:
        return () if option in OR_NONE and said == "none" else _listed(said)
    if option in ("class_weights", "costs", "balance_shares"):
        return _numbers(option, said)
    if option == "test":
        try:
            return float(said)
        except ValueError:
            return said
    return said


def _numbers(option: str, said: str) -> tuple[float, ...] | dict[str, float]:
    """Numbers with commas between, or NAME=NUMBER."""
    try:
        if option == "class_weights" and "=" not in said:
            return tuple(float(part) for part in _listed(said))
        pairs = [part.rpartition("=") for part in _listed(said)]
        return {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        forms = {"class_weights": "numbers, or CLASS=NUMBER,", "costs": "TRUE>SAID=NUMBER"}
        form = forms.get(option, "CLASS=NUMBER")
        raise AyatoriError(
            f"`--{option.replace('_', '-')}` must be {form} with commas between, however: {said!r}"
        ) from None


def _listed(text: str) -> tuple[str, ...]:
    """Parts with commas between, as in a line of CSV: one with a comma of its own stands in quotes.

    >>> _listed('age, "price, in €"')
    ('age', 'price, in €')
    """
    parts = next(csv.reader([text], skipinitialspace=True), [])
    return tuple(part.strip() for part in parts if part.strip())


def free_folder(data: Path, ending: str = "") -> Path:
    """runs/NAME, or runs/NAME-2 and so on when that is taken."""
    stem = (data.resolve().stem or "data") + ending
    number, path = 1, Path("runs") / stem
    while path.exists():
        number += 1
        path = Path("runs") / f"{stem}-{number}"
    return path


def sentence(error: Exception) -> str:
    """What a wrong command line is answered with."""
    match error:
        case ValidationError():
            return error.exception_message
        case UnusedCliTokensError():
            left = " ".join(error.unused_tokens or ())
            return f"an option must say what '{left}' is; --help lists them"
        case MissingArgumentError(argument=argument, keyword=str(keyword)) if argument:
            return f"{keyword} must be given a value, however nothing follows it"
        case MissingArgumentError(argument=argument, command_chain=chain) if argument:
            command = " ".join(["ayatori", *(chain or ())])
            return (
                f"{command} must be told {argument.name}, however it is not; {command} --help says what it is"
            )
        case RepeatArgumentError():
            return f"{error.token.keyword} must be given once, however it is repeated; a comma parts several"
    return str(error)
