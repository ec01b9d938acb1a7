"""What a run does before it trains: rows read, the Plan made, everything decided, looked at and told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from shlex import quote
from typing import Any

from ayatori import sentences
from ayatori.advise import advise
from ayatori.aside import end_second_process
from ayatori.assemble import whole_plan
from ayatori.augment import Changes, augment, candidates, resolve
from ayatori.clock import Clock
from ayatori.data import load
from ayatori.data.twins import Twins, bind, find_twins, known_rows, row_keys
from ayatori.embed import Frozen, cache_folder, embed
from ayatori.explore import explore
from ayatori.explore.varied import vary_some
from ayatori.nets import WHOLE
from ayatori.pretrained import as_seen, check_unseen, describe, find_pretrained, freeze, with_own_net
from ayatori.recipe import Recipe, change, to_toml
from ayatori.records import Dataset, Epoch, Look, Plan
from ayatori.store import RunFolder, check_same
from ayatori.train import Desk, compare_augments, settle, split


@dataclass(frozen=True)
class Event:
    """What a run tells while it goes: a sentence, a share of the stage that is done, or a finished epoch."""

    stage: str
    text: str = ""
    share: float | None = None
    epoch: Epoch | None = None


Show = Callable[[Event], None]


@dataclass(frozen=True)
class Ready:
    """What a run stands on before anything is trained: rows as read (``whole``), and as networks see them."""

    whole: Dataset
    dataset: Dataset
    plan: Plan
    recipe: Recipe
    twins: Twins
    frozen: Frozen | None


def prepare(
    data: Any,
    y: Any,
    recipe: Recipe,
    folder: RunFolder | None,
    show: Show,
    name: str,
    begun: Mapping[str, Any],
    clock: Clock,
) -> Ready:
    """Rows read, copies bound, the Plan made, frozen features computed, every setting decided."""
    recipe, source = find_pretrained(recipe)
    whole = read(data, y, recipe, folder, show, name)
    source = as_seen(whole, source) if source else None
    whole, frozen = freeze(whole, source, recipe) if source else (whole, None)
    check_same(begun, whole)
    clock.lap("read")
    twins = find_twins(whole)
    known = check_unseen(whole, source, twins.natural) if source else ""
    whole, bound = bind(whole, twins, recipe.plan)
    recipe = with_own_net(recipe, source)
    plan = whole_plan(whole, recipe, written=folder is not None)
    tell(show, sentences.of_rows(whole, plan, (bound, known)))
    clock.lap("plan")
    recipe = change(recipe, "train", augment=resolve(recipe.train.augment))
    dataset = embed_rows(whole, frozen, recipe, show)
    recipe = settle(recipe, dataset, plan.only(split(plan)[0]))
    if folder:
        folder.write_dataset(whole, known_rows(twins, plan))
        folder.write_plan(plan)
        folder.write_keys(row_keys(whole)[~plan.sealed])
        folder.write_text("recipe.toml", to_toml(recipe))
    clock.lap("settle" if frozen is None else "embed")
    return Ready(whole, dataset, plan, recipe, twins, frozen)


def read(data: Any, y: Any, recipe: Recipe, folder: RunFolder | None, show: Show, name: str) -> Dataset:
    if isinstance(data, Dataset):
        return data
    test = recipe.plan.test if isinstance(recipe.plan.test, str) else None
    dataset = load(
        data,
        y,
        recipe.data,
        test=test,
        cache=folder.cache if folder else None,
        progress=lambda done, whole: show(Event("read", share=done / max(whole, 1))),
    )
    return dataclasses.replace(dataset, source=dataset.source or name)


def embed_rows(dataset: Dataset, frozen: Frozen | None, recipe: Recipe, show: Show) -> Dataset:
    """What a pretrained network's frozen parts say of all rows; without one the dataset as it is."""
    if frozen is None:
        return dataset
    # a network that learns on as a whole sees the rows themselves
    plain = recipe.train.augment == "default" or recipe.net.name == WHOLE
    seen = embed(
        dataset,
        frozen,
        recipe.train.device,
        ("none" if plain else recipe.train.augment, recipe.pretrained.views),
        recipe.seed,
        cache_folder(),
        lambda share: show(Event("embed", share=share)),
        recipe.engine.dtype,
    )
    show(Event("embed", describe(seen, frozen, recipe)))
    return seen


def look_first(ready: Ready, folder: RunFolder | None, show: Show) -> tuple[Look | None, Mapping[str, Any]]:
    """What can be said before training, and its verdict; a resumed run has it already."""
    recipe = ready.recipe
    if not recipe.explore.look:
        return None, {}
    if folder and (folder.path / "explore.json").exists():
        return None, folder.read_json("explore.json")["verdict"]
    look = explore(
        ready.whole,
        ready.plan,
        recipe,
        twins=ready.twins,
        embedded=ready.dataset.inputs.get("features"),
        show=lambda text, share: show(Event("explore", text, share)),
    )
    end_second_process()
    if folder:
        folder.write_look(look)
    show(Event("explore", f"{look.verdict}: {look.sentence}"))
    for odd in look.facts["audit"]["sentences"]:
        show(Event("explore", odd))
    return look, look.facts["verdict"]


def advise_first(ready: Ready, folder: RunFolder | None, show: Show) -> Mapping[str, Any]:
    """Whether the pretrained network is close enough to this task; a resumed run knows it already."""
    if ready.frozen is None or not ready.recipe.pretrained.advise:
        return {}
    if folder and (folder.path / "advice.json").exists():
        return folder.read_json("advice.json")
    told = advise(
        ready.whole,
        ready.plan,
        ready.frozen,
        ready.recipe,
        lambda text, share: show(Event("advise", text, share)),
    )
    show(Event("advise", told.sentence))
    facts = {"word": told.word, "sentence": told.sentence, **told.figures}
    if folder:
        folder.write_json("advice.json", facts)
    return facts


def show_varied(ready: Ready, folder: RunFolder | None, show: Show) -> None:
    """What the augmentation does to some pictures, and whether it leads them astray."""
    how = ready.recipe.train.augment
    how = names[-1] if (names := candidates(how)) else how
    inputs, vary = ready.whole.inputs, augment(how)
    seen = ("image" in inputs and vary.pictures) or ("series" in inputs and vary.changes != Changes())
    if folder is None or not seen:
        return
    varied = vary_some(ready.whole, ready.plan, how, ready.recipe.seed)
    folder.write_varied(varied, how)
    show(
        Event(
            "augment",
            f"{varied.what} vary as in {folder.path / 'augment.png'}, the first of each line as it is",
        )
    )
    if varied.warning:
        show(Event("augment", f"careful: {varied.warning}"))


def compare_ways(
    dataset: Dataset, plan: Plan, recipe: Recipe, folder: RunFolder | None, show: Show
) -> tuple[Plan, Mapping[str, Any]]:
    """Where several augmentations are to be compared: the one that each fold learns with."""
    try:
        made = compare_augments(
            dataset, plan, recipe, desk_of(folder, show), lambda share: show(Event("augment", share=share))
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how_to_go_on(folder)) from None
    if made.sentence:
        show(Event("augment", made.sentence))
        if folder:
            folder.write_plan(made.plan)
    return made.plan, made.facts


def desk_of(folder: RunFolder | None, show: Show) -> Desk:
    return Desk(
        folder.keeper if folder else lambda part: None,
        on_epoch=lambda line: show(Event("train", epoch=line)),
        on_step=lambda share: show(Event("train", share=share)),
    )


def how_to_go_on(folder: RunFolder | None) -> str:
    """What is said at Ctrl-C; "" where nothing was saved yet."""
    if folder is None or not folder.has_checkpoint:
        return ""
    return f"go on with: ayatori resume {quote(str(folder.path))}"


def tell(show: Show, said: sentences.Said) -> None:
    for stage, text in said:
        show(Event(stage, text))


def silent(event: Event) -> None:
    pass
