"""Microseconds a picture on one thread: Ayatori, kornia, torchvision v2, albumentations, in one call.

The same pipeline for all: mirrored half of the time, turned by up to 15 degrees, a tenth larger or smaller
and shifted by up to a twelfth; brightness, contrast, saturation and hue; a box erased half of the time. Bytes
in, bytes out; torchvision and albumentations take one picture at a time, as their users do.

With ``--share`` also the share of training that Ayatori's augmentation takes: a CNN 32-64, one network and
five.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import machine, say

from ayatori.augment import augment

SIDES = (28, 64, 224)
CHANGES = {
    "flip": 0.5,
    "turn": 15,
    "zoom": 0.1,
    "shift": 1 / 12,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "erase": 0.5,
    "erase_most": 0.33,
}
Way = Callable[[torch.Tensor], Any]


def ours() -> Way:
    vary, generator = augment(CHANGES), torch.Generator().manual_seed(0)
    return lambda pictures: vary({"image": pictures}, generator)["image"]


def torchvision_one_by_one() -> Way:
    from torchvision.transforms import v2

    vary = v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.RandomAffine(15, (1 / 12, 1 / 12), (0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR),
            v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
            v2.RandomErasing(0.5),
        ]
    )
    return lambda pictures: torch.stack([vary(picture) for picture in pictures])


def kornia_batch() -> Way:
    import kornia.augmentation as K

    vary = K.AugmentationSequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomAffine(15, (1 / 12, 1 / 12), (0.9, 1.1), padding_mode="reflection", p=1.0),
        K.ColorJiggle(0.4, 0.4, 0.4, 0.1, p=1.0),
        K.RandomErasing(p=0.5),
    )
    return lambda pictures: (vary(pictures.float() / 255) * 255).to(torch.uint8)


def albumentations_one_by_one() -> Way:
    import albumentations as A
    import cv2

    cv2.setNumThreads(1)
    vary = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.Affine(
                rotate=(-15, 15),
                translate_percent=(-1 / 12, 1 / 12),
                scale=(0.9, 1.1),
                border_mode=cv2.BORDER_REFLECT_101,
                p=1.0,
            ),
            A.ColorJitter(p=1.0),
            A.CoarseDropout(num_holes_range=(1, 1), p=0.5),
        ]
    )

    def apply(pictures: torch.Tensor) -> torch.Tensor:
        flat = [np.ascontiguousarray(picture.permute(1, 2, 0).numpy()) for picture in pictures]
        changed = [torch.from_numpy(vary(image=picture)["image"]).permute(2, 0, 1) for picture in flat]
        return torch.stack(changed).contiguous()

    return apply


WAYS: dict[str, Callable[[], Way]] = {
    "ayatori": ours,
    "kornia": kornia_batch,
    "torchvision": torchvision_one_by_one,
    "albumentations": albumentations_one_by_one,
}


def microseconds(way: Way, pictures: torch.Tensor, seconds: float) -> float:
    """The best of the batches that fit into ``seconds``, two at least."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(found) < 2:
        start = time.perf_counter()
        way(pictures)
        found.append((time.perf_counter() - start) / len(pictures) * 1e6)
    return min(found)


def share_of_training(members: int, rows: int, channels: int) -> dict[str, float]:
    """Seconds of training with the pipeline and without, and what it adds, as a share of the latter."""
    import dataclasses

    import rivals

    from ayatori import load
    from ayatori.plan import make_plan
    from ayatori.recipe import PlanRecipe, Recipe, TrainRecipe
    from ayatori.train import settle, train

    chance = np.random.default_rng(0)
    pictures = chance.integers(0, 256, (rows, channels, 28, 28), dtype=np.uint8)
    data = load(pictures, y=np.arange(rows) % 10)
    strategy: Any = "holdout" if members == 1 else "kfold"
    plan = make_plan(data, PlanRecipe(strategy=strategy, folds=max(members, 2), test=0.0))
    found: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(3):
        for name, how in (("without", "none"), ("with", CHANGES)):
            training = TrainRecipe(epochs=2, batch_size=128, learning_rate=1e-3, augment=how, patience=99)
            recipe = Recipe(train=training)
            recipe = dataclasses.replace(recipe, net=dataclasses.replace(recipe.net, name=rivals.small_cnn))
            recipe = settle(recipe, data, plan)
            start = time.perf_counter()
            train(data, plan, recipe)
            found[name].append(time.perf_counter() - start)
    without, with_ = (min(found[name]) for name in ("without", "with"))
    return {"seconds": with_, "seconds_without": without, "share": (with_ - without) / without}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--sides", nargs="+", type=int, default=list(SIDES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--share", action="store_true")
    options = parser.parse_args()
    before, facts = machine(), {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ways = {name: WAYS[name]() for name in options.ways}
    for side in options.sides:
        chance = torch.Generator().manual_seed(0)
        pictures = torch.randint(0, 256, (options.batch, 3, side, side), generator=chance, dtype=torch.uint8)
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                found[name].append(microseconds(way, pictures, options.seconds))
        median = {name: statistics.median(values) for name, values in found.items()}
        facts[f"{side} x {side}"] = {"microseconds": median}
    torch.set_num_threads(threads)
    shares = {}
    if options.share:
        shares = {f"{k} networks": share_of_training(k, 6000, 1) for k in (1, 5)}
    say({**facts, "share of training": shares, "options": vars(options)}, before)


if __name__ == "__main__":
    main()
