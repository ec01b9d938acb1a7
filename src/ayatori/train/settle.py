"""Recipe, Dataset, Plan -> the recipe with everything decided, and every name in it known."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args, get_type_hints

import numpy as np

from ayatori.augment import augment, candidates, resolve, views
from ayatori.nets import TUNED, WHOLE, build, defaults, find_net, find_traits, kind_of, measure
from ayatori.recipe import EngineRecipe, Recipe, TrainRecipe, change, nearest
from ayatori.records import STOP, AyatoriError, Dataset, Plan
from ayatori.train.balance import check_balance
from ayatori.train.engine import choose, look
from ayatori.train.exact import decide_solver
from ayatori.train.loss import make_loss
from ayatori.train.memory import at_once, member_bytes
from ayatori.train.stream import make_stream, own_inputs, pick_device, read_by
from ayatori.train.tune import tune
from ayatori.train.workers import why_not_workers

LOOK_ROWS = 5_000  # that the network is tried with before training
FEW_STOP = 30  # stop rows; fewer say less of a CNN's epochs than its schedule does (dev/LOG.md, 2026-11-27)


def settle(recipe: Recipe, dataset: Dataset, plan: Plan) -> Recipe:
    """The recipe with every "decide from the data" decided. Settling twice changes nothing."""
    _check(recipe, dataset)
    dataset = read_by(recipe, dataset)
    name, _ = find_net(recipe.net, kind_of(dataset))
    rows = int(np.median([np.count_nonzero(plan.counts(member)) for member in plan.typical]))
    outputs = len(dataset.classes) if dataset.task != "regression" else dataset.labels.shape[1]
    decided = defaults(name, dataset, rows, outputs, recipe.preset)
    settings = recipe.train
    values = {
        "epochs": settings.epochs or decided["epochs"],
        "batch_size": settings.batch_size or decided["batch_size"],
        "learning_rate": settings.learning_rate or decided["learning_rate"],
        "weight_decay": decided["weight_decay"] if settings.weight_decay < 0 else settings.weight_decay,
        "warmup": decided["warmup"] if settings.warmup < 0 else settings.warmup,
        "beta2": settings.beta2 or decided["beta2"],
        "patience": settings.patience or decided["patience"],
        "augment": _augment(recipe, decided, dataset),
        "keep": _keep(settings, decided, plan),
    }
    recipe = change(recipe, "train", **values)
    views(recipe.train.augment, recipe.train.tta)
    if isinstance(recipe.net.name, str):
        recipe = change(recipe, "net", name=name)
    if own := decided.get("options"):
        recipe = change(recipe, "net", options={**own, **recipe.net.options})
    if recipe.loss.label_smoothing < 0:
        recipe = change(recipe, "loss", label_smoothing=decided["label_smoothing"])
    recipe = change(recipe, "train", solver=decide_solver(recipe, dataset))
    recipe = change(recipe, "data", task=dataset.task)
    return _with_engine(recipe, dataset, plan)


def _keep(settings: TrainRecipe, decided: dict[str, Any], plan: Plan) -> str:
    """Which epoch: as asked for; with few stop rows, unless patience was asked for, as the network likes."""
    if settings.keep != "auto":
        return settings.keep
    stop = np.median([len(plan.rows(member, STOP)) for member in plan.typical])
    few = stop < FEW_STOP and not settings.patience
    return str(decided.get("keep_by_few", "best")) if few else "best"


def _augment(recipe: Recipe, decided: dict[str, Any], dataset: Dataset) -> Any:
    """What was asked for, else the network's own; pictures that are drawn again and again vary a little."""
    if recipe.train.augment == "auto" and dataset.schema.kind == "recordings":
        return "none,light,sound"  # a sound that is played backwards is another
    if recipe.train.augment != "default":
        return resolve(recipe.train.augment)
    again = recipe.balance.name == "sample" and "image" in dataset.inputs
    return "light" if again else decided.get("augment", "none")


def weaker(
    recipe: Recipe,
    dataset: Dataset,
    depth: int = 0,
    width: int = 0,
    epochs: int = 0,
    plan: Plan | None = None,
) -> Recipe:
    """The settled recipe of a weaker learner, one that leaves boosting something to learn.

    ``depth`` hidden layers of ``width`` units, ``epochs`` at most; 0 leaves each as it is. A CNN has so many
    layers of its full width: the first is plain, each further one a residual block. With a ``plan`` it is
    decided anew how its members run together.
    """
    for name, value in {"boost_depth": depth, "boost_width": width, "boost_epochs": epochs}.items():
        if value < 0:
            raise AyatoriError(f"`{name}` must be positive, or 0 to leave it as it is, however: {value}")
    if depth or width:
        recipe = change(recipe, "net", options=_weaker_options(recipe, dataset, depth, width))
    if epochs:
        recipe = change(recipe, "train", epochs=epochs)
    if plan is None:
        return recipe
    asked = recipe.engine.why.startswith("it was asked for")
    mode = recipe.engine.mode if asked else "auto"
    return settle(change(recipe, "engine", mode=mode, together=0, tune=False), dataset, plan)


def _weaker_options(recipe: Recipe, dataset: Dataset, depth: int, width: int) -> dict[str, Any]:
    name, own = find_net(recipe.net, kind_of(dataset))
    given = name == WHOLE and dataset.schema.source is not None
    if own is not None or given or name in ("linear", TUNED):
        raise AyatoriError(
            "`boost_depth` and `boost_width` must be 0 unless the network is our mlp or cnn, however it is "
            f"{name!r}; leave them out"
        )
    options = dict(recipe.net.options)
    if depth:
        options["depth"] = depth if name == "mlp" else depth - 1
    if width:
        options["width"] = width
    return options


def _with_engine(recipe: Recipe, dataset: Dataset, plan: Plan) -> Recipe:
    """How the members run together, found by trying the network of the first."""
    rows = plan.train_rows(0)[:LOOK_ROWS]
    inputs = own_inputs(dataset, rows, recipe.seed)
    network = build(recipe.net, dataset, measure(inputs, dataset.schema), recipe.seed)
    network.fit(inputs, dataset.labels[rows])
    traits = find_traits(network, inputs)
    if traits.mixes_rows:
        # statistics of a batch cannot be had from a single row
        recipe = change(recipe, "train", batch_size=max(recipe.train.batch_size, 2))
    stream = make_stream(dataset, plan, recipe)
    device = pick_device(recipe.train.device)
    machine = look(device)
    shared = stream.shared is not None
    asked = recipe.engine
    engine = choose(asked, traits, stream.size, plan.members, shared, machine)
    if engine.workers > 1 and (alone := why_not_workers(recipe)):
        engine = dataclasses.replace(engine, workers=1, why=f"{engine.why}; one process: {alone}")
    if not engine.together:
        each = member_bytes(network, traits, len(dataset), stream.size)
        engine = dataclasses.replace(engine, together=at_once(plan.members, each, device))
    recipe = dataclasses.replace(recipe, engine=engine)
    if engine.tune:
        recipe = dataclasses.replace(recipe, engine=tune(recipe, asked, dataset, plan, traits, machine))
    return recipe


def _check_values(settings: EngineRecipe | TrainRecipe) -> None:
    for name, kind in get_type_hints(type(settings)).items():
        value, known = getattr(settings, name), get_args(kind)
        if known and value not in known:
            hint = nearest(str(value), known)
            raise AyatoriError(f"`{name}` must be one of {', '.join(known)}, however: {value!r}{hint}")
        if kind is int and value < 0:
            raise AyatoriError(f"`{name}` must be positive, or 0 to have it decided, however: {value}")


def _check(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse before training what would fail after it."""
    from ayatori.evaluate import check_baselines  # here: a worker starts a third sooner without scikit-learn

    settings = recipe.train
    if settings.learning_rate < 0:
        raise AyatoriError(
            f"`learning_rate` must be positive, or 0 to have it decided, however: {settings.learning_rate}"
        )
    make_loss(recipe.loss, dataset.task)
    _check_augment(recipe, dataset)
    _check_values(settings)
    _check_values(recipe.engine)
    check_balance(recipe, dataset)
    check_baselines(recipe.evaluate)


def _check_augment(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse an augmentation that is not known or does not fit, before anything was trained."""
    settings = recipe.train
    if not 1 <= settings.tta <= 64:
        raise AyatoriError(f"`tta` must be from 1 to 64 views, however: {settings.tta}")
    if settings.tta > 1 and "image" not in dataset.inputs:
        raise AyatoriError(
            "`tta` looks at varied pictures when it predicts, however these networks do not see pictures "
            "themselves; leave it out"
        )
    if settings.augment == "default":
        return
    given = resolve(settings.augment)
    if names := candidates(given):
        if dataset.schema.source is not None:
            raise AyatoriError(
                "augmentations are compared by networks that see the rows themselves, however a frozen "
                f"network stands before them: {given!r}; name one, such as --augment light"
            )
        given = names[-1]
    how = augment(given)
    if how.own is not None and "image" not in dataset.inputs and dataset.schema.image is None:
        raise AyatoriError(
            "a transform changes pictures, however these rows have none; use a preset or a TOML file with "
            "jitter, hide, swap or mixup"
        )
    if how.pairs and callable(recipe.loss.name):
        raise AyatoriError(
            "rows that are mixed have shares of two classes, however a loss of your own knows codes; leave "
            "out mixup and cutmix, or the loss"
        )
