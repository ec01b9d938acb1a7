"""A frozen network sees each row once, and what it said is never taken for what another would say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ayatori import load
from ayatori.embed import KEPT_BYTES, Frozen, _make_room, cache_folder, embed
from ayatori.nets.source import Source
from ayatori.plan import make_plan
from ayatori.recipe import NetRecipe, PlanRecipe, Recipe, TrainRecipe, change
from ayatori.records import AyatoriError, Dataset
from ayatori.train import settle, train
from tests.helpers import assert_close, plain_loop


class Pixels(nn.Module):
    """The front of a small source: 0..255 -> -1..1."""

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return inputs["image"].float() / 127.5 - 1


def small_source(seed: int = 0, **facts: object) -> Source:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        second = nn.Sequential(
            nn.Conv2d(6, 8, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
    parts = tuple(part.eval().requires_grad_(False) for part in (first, second))
    known = {
        "name": "small",
        "kind": "timm",
        "architecture": "small",
        "digest": str(seed),
        "image": [1, 8, 8],
    }
    return Source({**known, "crop": 0.0, "resample": "bilinear", **facts}, Pixels().eval(), parts, 32, True)


def some_pictures(n: int = 90, seed: int = 0) -> Dataset:
    chance = np.random.default_rng(seed)
    target = chance.integers(0, 3, n)
    pixels = chance.integers(0, 160, size=(n, 1, 8, 8))
    pixels[np.arange(n), 0, target * 2] += 90
    return load(pixels.astype(np.uint8), y=target.astype(str))


def says(source: Source, image: np.ndarray) -> np.ndarray:
    """What the source says, in one pass of plain PyTorch."""
    with torch.no_grad():
        return nn.Sequential(*source.parts)(source.front({"image": torch.from_numpy(image)})).numpy()


def on(dataset: Dataset, source: Source, **inputs: np.ndarray) -> Dataset:
    """The dataset as networks on ``source`` see it, with ``inputs`` in place of its own."""
    schema = dataclasses.replace(dataset.schema, source=Frozen(source).facts())
    return dataclasses.replace(dataset, schema=schema, inputs=inputs or dataset.inputs)


class Live:
    """Features that nobody keeps: the frozen network runs anew each time that rows are asked for."""

    def __init__(self, source: Source, image: np.ndarray) -> None:
        self.source, self.image, self.passes = source, image, 0
        self.shape = (len(image), source.width)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.passes += len(rows)
        return says(self.source, self.image[rows])


def test_each_row_is_what_one_pass_of_the_network_says_of_it() -> None:
    dataset, source = some_pictures(), small_source()
    seen = embed(dataset, Frozen(source), dtype="float32")
    np.testing.assert_allclose(seen.inputs["features"], says(source, dataset.inputs["image"]), atol=1e-5)
    assert seen.inputs["features"].dtype == np.float32
    assert set(seen.inputs) == {"features"}


def test_a_cut_gives_what_the_parts_before_it_say_and_the_rest_of_the_network_completes_it() -> None:
    dataset, source = some_pictures(), small_source()
    seen = embed(dataset, Frozen(source, cut=1), dtype="float32").inputs
    with torch.no_grad():
        after = source.parts[1](torch.from_numpy(seen["activations"]).float()).numpy()
    np.testing.assert_allclose(after, seen["features"], atol=2e-3)  # they are kept in 16 bits
    assert seen["activations"].shape == (90, 6, 8, 8)
    raw = embed(dataset, Frozen(source, cut=0)).inputs
    np.testing.assert_array_equal(raw["image"], dataset.inputs["image"])


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_head_on_kept_features_learns_what_one_behind_the_running_network_learns(head: str) -> None:
    dataset, source = some_pictures(), small_source()
    kept = on(dataset, source, **embed(dataset, Frozen(source), dtype="float32").inputs)
    live = Live(source, dataset.inputs["image"])
    uncached = on(dataset, source, features=live)  # type: ignore[arg-type]
    recipe = Recipe(
        net=NetRecipe(name=head),
        plan=PlanRecipe(folds=3),
        train=TrainRecipe(epochs=4, batch_size=20, learning_rate=0.01, patience=99, solver="steps"),
    )
    plan = make_plan(kept, recipe.plan)
    recipe = settle(recipe, kept, plan)
    for member in train(kept, plan, recipe):
        expected = plain_loop(uncached, plan, recipe, member.index)
        assert_close(member, {name: value for name, value in expected.items() if name != "shift"})
    assert live.passes > 4 * 3 * 40  # the other way, every epoch of every fold runs the network


def test_a_kept_feature_is_found_again_and_the_network_does_not_run(tmp_path: Path) -> None:
    dataset, source = some_pictures(), small_source()
    first = embed(dataset, Frozen(source), cache=tmp_path).inputs["features"]
    ran: list[float] = []
    again = embed(dataset, Frozen(source), cache=tmp_path, progress=ran.append).inputs["features"]
    np.testing.assert_array_equal(again, first)
    assert not ran


CHANGES = {
    "a weight": lambda: (some_pictures(), Frozen(small_source(1)), {}),
    "the cut": lambda: (some_pictures(), Frozen(small_source(), cut=1), {}),
    "the crop": lambda: (some_pictures(), Frozen(small_source(crop=0.875)), {}),
    "the resampling": lambda: (some_pictures(), Frozen(small_source(resample="bicubic")), {}),
    "the mean of the source": lambda: (some_pictures(), Frozen(small_source(mean=[3.0])), {}),
    "a pixel": lambda: (some_pictures(seed=1), Frozen(small_source()), {}),
    "the views": lambda: (some_pictures(), Frozen(small_source()), {"varied": ("light", 3)}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_changes_never_meets_an_old_cache(what: str, tmp_path: Path) -> None:
    embed(some_pictures(), Frozen(small_source()), cache=tmp_path)
    dataset, frozen, given = CHANGES[what]()
    ran: list[float] = []
    found = embed(dataset, frozen, cache=tmp_path, progress=ran.append, dtype="float32", **given).inputs[
        "features"
    ]
    assert ran[-1] == 1.0
    np.testing.assert_allclose(found, says(frozen.source, dataset.inputs["image"]), atol=1e-5)


def test_a_damaged_file_is_computed_anew(tmp_path: Path) -> None:
    dataset, source = some_pictures(), small_source()
    first = embed(dataset, Frozen(source), cache=tmp_path).inputs["features"]
    (path,) = tmp_path.glob("*.safetensors")
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:-4] + b"\0\0\1\0", b""):
        path.write_bytes(broken)
        again = embed(dataset, Frozen(source), cache=tmp_path).inputs["features"]
        np.testing.assert_array_equal(again, first)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    seen = embed(some_pictures(), Frozen(small_source()), cache=tmp_path / "file" / "cache")
    assert np.isfinite(seen.inputs["features"]).all()


def test_the_cache_makes_room_for_what_is_new(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "other.txt").write_text("mine")
    import os

    os.utime(tmp_path / "old.safetensors", (1, 1))
    _make_room(tmp_path, KEPT_BYTES - 150)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.safetensors", "other.txt"]


def test_the_cache_can_be_named_and_turned_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AYATORI_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("AYATORI_CACHE", "off")
    assert cache_folder() is None


def test_a_network_in_training_is_not_frozen() -> None:
    source = small_source()
    source.parts[0].train()
    with pytest.raises(AyatoriError, match="must be in evaluation mode"):
        embed(some_pictures(), Frozen(source))


def test_views_are_the_row_as_it_is_and_varied_ones() -> None:
    dataset, source = some_pictures(), small_source()
    seen = embed(dataset, Frozen(source), varied=("light", 4), seed=3).inputs
    assert seen["features_views"].shape == (90, 4, 32)
    np.testing.assert_array_equal(seen["features_views"][:, 0], seen["features"])
    for view in range(1, 4):
        moved = np.abs(seen["features_views"][:, view] - seen["features"]).max(axis=1) > 1e-3
        assert moved.mean() > 0.7  # a picture may be moved by nothing
    again = embed(dataset, Frozen(source), varied=("light", 4), seed=3).inputs["features_views"]
    np.testing.assert_array_equal(again, seen["features_views"])


def test_views_teach_but_neither_stop_nor_score() -> None:
    dataset, source = some_pictures(), small_source()
    inputs = embed(dataset, Frozen(source), varied=("light", 3)).inputs
    recipe = Recipe(train=TrainRecipe(epochs=3, batch_size=20, augment="light", patience=99))
    plan = make_plan(dataset, PlanRecipe(folds=3))
    settled = settle(recipe, on(dataset, source, **inputs), plan)
    first = train(on(dataset, source, **inputs), plan, settled)
    spoiled = inputs["features_views"].copy()
    for member in range(plan.members):
        unseen = plan.counts(member) == 0
        if member == 0:
            spoiled[unseen] = 1e6
    again = train(on(dataset, source, **{**inputs, "features_views": spoiled}), plan, settled)
    for name, value in first[0].network.state_dict().items():
        torch.testing.assert_close(again[0].network.state_dict()[name], value, rtol=0, atol=0)
    plain = train(
        on(dataset, source, features=inputs["features"]), plan, change(settled, "train", augment="none")
    )
    assert not torch.equal(plain[0].network.body.weight, first[0].network.body.weight)


def test_what_is_said_of_a_row_does_not_depend_on_the_other_rows() -> None:
    dataset, source = some_pictures(), small_source()
    some = np.array([3, 17, 40, 41, 88])
    part = dataclasses.replace(
        dataset,
        inputs={"image": dataset.inputs["image"][some]},
        ids=dataset.ids[some],
        target=dataset.labels[some],
    )
    whole = embed(dataset, Frozen(source), dtype="float32").inputs["features"]
    np.testing.assert_allclose(
        embed(part, Frozen(source), dtype="float32").inputs["features"], whole[some], atol=1e-5
    )


def test_labels_are_never_read() -> None:
    dataset, source = some_pictures(), small_source()
    blind = dataclasses.replace(dataset, target=None)
    np.testing.assert_array_equal(
        embed(blind, Frozen(source)).inputs["features"],
        embed(dataset, Frozen(source)).inputs["features"],
    )
