"""What a run says of itself before it trains: (stage, sentence) pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ayatori.pretrained import source_name
from ayatori.recipe import Recipe
from ayatori.records import STOP, UNUSED, Dataset, Plan, Schema
from ayatori.train import balances, sentence, split

Said = Iterator[tuple[str, str]]


def of_rows(dataset: Dataset, plan: Plan, found: Sequence[str]) -> Said:
    """What was read, what was ``found`` in it, and who will learn from which of it."""
    shapes = {name: values.shape[1:] for name, values in dataset.inputs.items()}
    what = [
        of_pictures(dataset.schema, shape)
        if name == "image"
        else f"series of {_counted(shape[0], 'channel')} and {_counted(shape[1], 'step')}"
        if name == "series"
        else _counted(len(dataset.schema.texts), "column") + " of texts"
        if name == "words"
        else f"{_counted(shape[0], 'column')} of {name}"
        for name, shape in shapes.items()
        if shape[0]
    ]
    yield "read", f"{len(dataset):,} rows: {', '.join(what)}"
    for note in (*dataset.notes, *filter(None, found)):
        yield "read", note
    sealed, own = int(plan.sealed.sum()), _own(plan)
    test = f"{sealed:,} of {len(dataset):,} rows are sealed as the test" if sealed else "no rows are sealed"
    how = {
        "kfold": f"{own} folds, one network each",
        "rotate": f"{plan.members} turns of train and validation",
        "holdout": "one network",
    }
    yield "plan", f"{test}; {how[plan.strategy]}"
    if plan.members > own:
        kinds = Counter(column.kind for column in plan.columns[own:])
        words = {"bag": "bags", "pair": "without two folds, for the stack", "fold": "of other kinds"}
        words["plain"] = "with no class balanced, to compare with"
        told = ", ".join(f"{number} {words[kind]}" for kind, number in kinds.items())
        yield "plan", f"{plan.members - own} networks beside them: {told}"
    by_time = dataset.order is not None
    unused = (plan.roles == UNUSED).all(axis=1)
    idle = int((unused if dataset.barred is None else unused & ~dataset.barred).sum())
    if by_time and dataset.groups is not None and idle:
        yield (
            "plan",
            f"{idle:,} rows teach and judge nobody: their groups come back in rows that are judged later",
        )
    learn = [len(plan.train_rows(member)) for member in range(own)]
    stop = len(plan.rows(0, STOP))
    if by_time and max(learn) > min(learn):
        yield "plan", f"the networks train on {min(learn):,} to {max(learn):,} rows, later ones on more"
    else:
        yield "plan", f"a network trains on about {learn[0]:,} rows and stops by {stop:,} others"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def of_pictures(schema: Schema, shape: Sequence[int]) -> str:
    """What kind of pictures, (c, h, w), rows are."""
    if schema.kind == "recordings":
        return f"recordings, as pictures of {shape[1]} x {shape[2]}"
    return ("scans of " if schema.slices else "pictures of ") + " x ".join(map(str, shape))


def of_training(plan: Plan, recipe: Recipe) -> Said:
    """How the networks will be trained."""
    net = recipe.net.name if isinstance(recipe.net.name, str) else plan.columns[0].net
    net += f" on {source_name(recipe)}" if recipe.pretrained.name else ""
    if recipe.train.solver == "exact":
        yield "train", f"{net}: solved exactly, for several penalties; each network keeps its best"
        return
    yield "train", f"{net}: at most {recipe.train.epochs} epochs, batches of {recipe.train.batch_size}"
    yield "train", sentence(recipe.engine, len(split(plan)[0]))
    if balances(recipe):
        rare = "weigh more" if recipe.balance.name == "weight" else "are drawn more often"
        yield "train", f"rare rows {rare}; what is said of new rows is led back to the true shares"


def _own(plan: Plan) -> int:
    """How many members are folds of the run's own network."""
    return sum(c.kind == "fold" and c.net == plan.columns[0].net for c in plan.columns)
