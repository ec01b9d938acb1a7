"""Stage 3. What an augmentation will do, before it is used: pictures to look at, and a warning in numbers.

A picture that is varied should still be nearer to its own class than to others. That is tried in a plain
space (small pictures, each with mean 0 and length 1) among all rows and slightly moved copies of them, so
that a shift or a change of light alone alarms nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from ayatori.augment import Augmentation, Changes, augment, changes_of, vary_series
from ayatori.explore.thumbs import drawn, visible
from ayatori.records import Dataset, Plan

VARIANTS = 8
SHOWN, LINES = 12, 96  # classes of the sheet; pixels of a series that is drawn
SIDE, LARGE = 16, 48  # pixels of the plain space; larger pictures are made smaller first
REFERENCES, COPIES, ASKED, TRIED = 1500, 4, 400, 2
HARMLESS = Changes(shift=1 / 12, turn=10, zoom=0.1)
# a warning needs so many more wrong neighbours, and so little chance of an accident. Mirrored digits: 0.6;
# mirrored clothes, whose shoes all point one way but stay shoes: 0.18
ALL = "all changes together"
EXCESS, DOUBT = 0.25, 1e-3
SINGLE = ("flip", "upside_down", "turn", "crop", "shear", "perspective", "erase", "hue", "stretch", "zoom")


@dataclass(frozen=True)
class Varied:
    """``pictures`` (k, 9, c, h, w) uint8: a row and eight variants, of ``rows`` (k,) called ``names`` (k,).

    ``warning``: a sentence, "" where nothing is odd; ``figures`` behind it.
    """

    pictures: np.ndarray
    rows: np.ndarray
    names: tuple[str, ...]
    warning: str
    figures: Mapping[str, Any]
    what: str = "pictures"


def vary_some(dataset: Dataset, plan: Plan | None, how: Any, seed: int = 0) -> Varied:
    """A contact sheet of ``how`` on a row of each class, and whether it leads rows to other classes.

    Sealed rows are left alone.
    """
    vary = augment(how, deep=dataset.schema.slices)
    chance = np.random.default_rng([seed, 31])
    free = np.arange(len(dataset)) if plan is None else np.flatnonzero(~plan.sealed)
    free = chance.permutation(free)
    rows, names = _examples(dataset, free)
    if "series" in dataset.inputs:
        return Varied(_series(dataset, rows, vary, seed), rows, names, "", {}, "series")
    again = np.repeat(rows, VARIANTS)
    batch, first = {"image": _take(dataset, again)}, _take(dataset, rows)
    if "mask" in dataset.inputs:
        batch["mask"] = torch.from_numpy(np.ascontiguousarray(dataset.inputs["mask"][again]))
    changed = vary(batch, torch.Generator().manual_seed(seed))
    variants = changed["image"]
    if "mask" in dataset.inputs:
        first = _tinted(first, torch.from_numpy(np.ascontiguousarray(dataset.inputs["mask"][rows])))
        variants = _tinted(variants, changed["mask"])
    pictures = torch.cat([first[:, None], variants.unflatten(0, (len(rows), VARIANTS))], 1).numpy()
    flat = pictures.reshape(-1, *pictures.shape[2:])
    shown = visible(flat, np.arange(len(flat)))
    pictures = shown.reshape(*pictures.shape[:2], *shown.shape[1:])
    warning, figures = "", {}
    if dataset.task == "classification" and vary.pictures:
        figures = _neighbours(dataset, free, vary, seed)
        warning = _warning(figures, dataset.classes)
    return Varied(pictures, rows, names, warning, figures, "scans" if dataset.schema.slices else "pictures")


def _series(dataset: Dataset, rows: np.ndarray, vary: Augmentation, seed: int) -> np.ndarray:
    """(k, 9, 3, s, s): series and their variants as lines, all to one scale."""
    series = dataset.inputs["series"]
    again = torch.from_numpy(series[np.repeat(rows, VARIANTS)])
    changed = vary_series(again[None], vary.changes, [seed])[0].numpy()
    own = drawn(series, rows, LINES)[:, None]
    variants = drawn(np.concatenate([series, changed]), len(series) + np.arange(len(changed)), LINES)
    return np.concatenate([own, variants.reshape(len(rows), VARIANTS, *variants.shape[1:])], axis=1)


def _tinted(image: Tensor, mask: Tensor) -> Tensor:
    """(b, c, h, w) in colour, what the mask (b, h, w) marks in orange: each mark of its own strength."""
    colour = image.expand(-1, 3, -1, -1).float() if image.shape[1] == 1 else image[:, :3].float()
    strength = 0.6 * mask[:, None].float() / mask.max().clamp(min=1)
    orange = torch.tensor([255.0, 120.0, 0.0])[:, None, None]
    return torch.lerp(colour, orange.expand_as(colour), strength.expand_as(colour)).round().to(torch.uint8)


def _examples(dataset: Dataset, free: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """A row of each class (of some, where there are many), or any rows where there are none."""
    if dataset.task != "classification":
        rows = free[:SHOWN]
        return rows, tuple(str(name) for name in dataset.ids[rows])
    labels = dataset.labels[free]
    there, first = np.unique(labels, return_index=True)
    if len(there) > SHOWN:
        keep = np.linspace(0, len(there) - 1, SHOWN).astype(int)
        there, first = there[keep], first[keep]
    return free[first], tuple(dataset.classes[code] for code in there)


def _take(dataset: Dataset, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(dataset.inputs["image"][rows]))


def _neighbours(dataset: Dataset, free: np.ndarray, vary: Augmentation, seed: int) -> dict[str, Any]:
    """Shares of rows, as they are and varied, whose nearest neighbour is of another class."""
    rows = free[:REFERENCES]
    groups = rows if dataset.groups is None else dataset.groups[rows]
    generator = torch.Generator().manual_seed(seed)
    pictures = _take(dataset, rows)
    if vary.own is None and max(pictures.shape[-2:]) > LARGE:
        pictures = F.interpolate(pictures.float(), (LARGE, LARGE), mode="area").round().to(torch.uint8)
    copies = [_plain(pictures)]
    copies += [_plain(Augmentation(HARMLESS)({"image": pictures}, generator)["image"]) for _ in range(COPIES)]
    places = torch.cat(copies)
    labels, owners = np.tile(dataset.labels[rows], COPIES + 1), torch.from_numpy(np.tile(groups, COPIES + 1))
    asked = np.arange(min(ASKED, len(rows)))

    own, truth = pictures[asked], dataset.labels[rows[asked]]

    def wrong(images: Tensor) -> np.ndarray:
        """(asked,) bool: whether the nearest of all other rows has another class."""
        alike = _plain(images) @ places.T
        alike[torch.from_numpy(groups[asked])[:, None] == owners] = -np.inf
        return labels[alike.argmax(1).numpy()] != truth

    before = wrong(own)

    def of(changes: Augmentation) -> dict[str, Any]:
        tried = [wrong(changes({"image": own}, generator)["image"]) for _ in range(TRIED)]
        lost = np.mean([after & ~before for after in tried])
        won = np.mean([before & ~after for after in tried])
        after = np.mean(tried, axis=0)
        classes = [
            float((after - before)[truth == code].mean()) if (truth == code).any() else 0.0
            for code in range(len(dataset.classes))
        ]
        sure = _by_accident(lost * len(asked), won * len(asked))
        return {"share": float(after.mean()), "excess": float(lost - won), "p": sure, "classes": classes}

    parts = {}
    neutral = Changes()
    for name in SINGLE if vary.own is None else ():
        value = getattr(vary.changes, name)
        if value != getattr(neutral, name):
            sure = 1.0 if name in ("flip", "upside_down", "erase") else value
            alone = changes_of({name: sure, "erase_most": vary.changes.erase_most})
            parts[name] = of(Augmentation(alone))
    return {"rows": len(asked), "share": float(before.mean()), "all": of(vary), "parts": parts}


def _by_accident(lost: float, won: float) -> float:
    """McNemar's test: the chance of so many lost against won, were the change harmless."""
    total = round(lost + won)
    return float(stats.binomtest(round(lost), total, 0.5, alternative="greater").pvalue) if total else 1.0


def _plain(images: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, d) of length 1."""
    height, width = (min(SIDE, side) for side in images.shape[-2:])
    flat = F.adaptive_avg_pool2d(images.float(), (height, width)).flatten(1)
    return F.normalize(flat - flat.mean(1, keepdim=True), dim=1)


def _warning(figures: Mapping[str, Any], classes: tuple[str, ...]) -> str:
    """What leads rows to other classes; "" where nothing does."""
    guilty = {
        name: part
        for name, part in {**figures["parts"], ALL: figures["all"]}.items()
        if part["excess"] > EXCESS and part["p"] < DOUBT
    }
    if not guilty:
        return ""
    name = max(guilty, key=lambda key: (key != ALL, guilty[key]["excess"]))
    part = guilty[name]
    order = np.argsort(part["classes"])[::-1][:3]
    worst = [classes[code] for code in order if part["classes"][code] > EXCESS]
    most = f", most of all {', '.join(worst)}" if worst else ""
    what = {"flip": "mirroring (flip)", "upside_down": "turning upside down"}.get(name, name)
    weaker = "weaken them" if name == ALL else f"lower `{name}`"
    advice = f"{weaker} in a TOML file, or use --augment light"
    advice = "use --augment digits" if name == "flip" else advice
    verb = "lead" if name == ALL else "leads"
    return (
        f"{what} {verb} rows to other classes: {part['share']:.0%} of varied pictures are nearest to another "
        f"class than their own, {figures['share']:.0%} as they are{most}; {advice}"
    )
