"""Augmentation in a run: seen before it is used, compared in one shared run, and in prediction."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import command
from PIL import Image
from sklearn.datasets import load_digits

import ayatori
from ayatori import load
from ayatori.augment import views
from ayatori.explore.varied import vary_some
from ayatori.model_files import load_model
from ayatori.plan import make_plan
from ayatori.recipe import PlanRecipe, from_flat, from_toml
from ayatori.records import SCORE, STOP, AyatoriError, Dataset
from ayatori.report import facts, write_report
from ayatori.run import Event
from ayatori.train import settle, train
from ayatori.train.stack import Stack
from ayatori.train.stream import Given

QUICK = {"folds": 2, "epochs": 3, "baselines": (), "look": False, "batch_size": 32}
SMALL = {**QUICK, "options": {"width": 8, "depth": 0}, "dtype": "float32"}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    found = load_digits()
    return load((found.images[:, None] * (255 / 16)).round().astype(np.uint8), y=found.target)


def pictures(rows: int = 160, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    x = rng.integers(0, 150, (rows, 1, 10, 10))
    x[y == 1, :, 3:7, 3:7] += 80
    return load(x.astype(np.uint8), y=np.where(y == 1, "bright", "dark"))


def test_mirrored_digits_get_a_warning_and_digits_that_are_moved_do_not(digits: Dataset) -> None:
    for name in ("standard", "strong"):
        assert "flip" in vary_some(digits, None, name).warning
        assert "--augment digits" in vary_some(digits, None, name).warning
    for how in ("light", "digits", {"brightness": 0.4, "contrast": 0.4, "turn": 15}):
        assert vary_some(digits, None, how).warning == ""


def test_a_sheet_shows_a_row_of_each_class_first_as_it_is(digits: Dataset) -> None:
    seen = vary_some(digits, None, "digits")
    assert seen.pictures.shape == (10, 9, 1, 8, 8)
    assert seen.names == digits.classes
    np.testing.assert_array_equal(seen.pictures[:, 0], digits.inputs["image"][seen.rows])
    assert [digits.classes[code] for code in digits.labels[seen.rows]] == list(seen.names)
    assert all((seen.pictures[:, view] != seen.pictures[:, 0]).any((1, 2, 3)).all() for view in range(1, 9))


def test_a_sheet_shows_masks_where_their_pictures_went() -> None:
    data = pictures(24)
    mask = np.zeros((24, 10, 10), np.int64)
    mask[:, 3:7, 3:7] = 1
    image = data.inputs["image"].copy()
    image[:], image[:, :, 3:7, 3:7] = 20, 200
    seen = vary_some(
        dataclasses.replace(data, inputs={"image": image, "mask": mask}), None, {"shift": 0.2, "flip": 0.5}
    )
    assert seen.pictures.shape == (2, 9, 3, 10, 10)
    red, blue = seen.pictures[:, :, 0].astype(int), seen.pictures[:, :, 2].astype(int)
    marked = red - blue > 60
    np.testing.assert_array_equal(marked, red > 150)
    assert (marked.sum((2, 3)) == 16).mean() > 0.5
    assert (marked[:, 1:] != marked[:, :1]).any()


def test_sealed_rows_are_never_looked_at(digits: Dataset) -> None:
    plan = make_plan(digits, PlanRecipe(folds=2, test=0.3))
    seen = vary_some(digits, plan, "strong")
    assert not plan.sealed[seen.rows].any()
    image, labels = digits.inputs["image"].copy(), digits.labels.copy()
    image[plan.sealed], labels[plan.sealed] = 0, 0
    other = dataclasses.replace(digits, inputs={"image": image}, target=labels)
    assert vary_some(other, plan, "strong").figures == seen.figures


def test_a_run_tells_how_pictures_vary_before_it_trains(tmp_path: Path, digits: Dataset) -> None:
    told: list[Event] = []
    recipe = from_flat({**SMALL, "epochs": 1, "augment": "standard"})
    ayatori.run(digits, recipe, out=tmp_path / "run", show=told.append)
    stages = [event.stage for event in told]
    said = [event.text for event in told if event.stage == "augment" and event.text]
    assert stages.index("augment") < stages.index("train")
    assert any("augment.png" in text for text in said)
    assert any(text.startswith("careful: mirroring (flip)") for text in said)
    with Image.open(tmp_path / "run" / "augment.png") as sheet:
        assert sheet.size[0] > 9 * 60
    page = facts(tmp_path / "run")["augmented"]
    assert page["how"] == "standard"
    assert "flip" in page["warning"]
    assert [strip["name"] for strip in page["strips"]] == list(digits.classes)
    html = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert html.count("a picture and eight variants") == 10
    assert "://" not in html.replace("http://www.w3.org", "")


def test_the_command_augment_writes_a_page_and_refuses_what_it_cannot_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("<b>cat</b>", "犬 dog"):
        (tmp_path / "pets" / name.replace("/", "_")).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name.replace("/", "_") / f"{number}.png")
    page = tmp_path / "sheet.html"
    assert command(monkeypatch, "augment", tmp_path / "pets", "--augment", "strong", "-o", page) == 0
    html = page.read_text(encoding="utf-8")
    assert "<b>cat" not in html
    assert "犬 dog" in html
    assert command(monkeypatch, "augment", tmp_path / "pets", "--augment", "stong") == 2
    assert "did you mean 'strong'" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text("a,y\n1,u\n2,v\n3,u\n4,v\n")
    assert command(monkeypatch, "augment", tmp_path / "t.csv") == 2
    assert "pictures" in capsys.readouterr().err


# several, compared


def test_each_fold_keeps_what_was_best_on_its_own_stop_rows_and_the_page_says_so(tmp_path: Path) -> None:
    data = pictures()
    recipe = from_flat({**SMALL, "folds": 3, "augment": "none,light,standard"})
    result = ayatori.run(data, recipe, out=tmp_path / "run")
    seen = result.augment
    losses = np.array(seen["losses"])
    assert losses.shape == (3, 3)
    best = [seen["names"][place] for place in losses.argmin(axis=0)]
    assert [column.augment for column in result.plan.columns] == best == seen["chosen"]
    page = facts(tmp_path / "run")["augmented"]["compared"]
    assert [line["kept"] for line in page["lines"]] == [best.count(name) for name in seen["names"]]
    assert "what was best on its own stop rows" in write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert from_toml((tmp_path / "run" / "recipe.toml").read_text()).train.augment == "none,light,standard"


def test_a_network_learns_the_same_whether_others_vary_otherwise_beside_it() -> None:
    data = pictures()
    plan = make_plan(data, PlanRecipe(folds=2, test=0.0))
    recipe = settle(from_flat({**SMALL, "threads": 1}), data, plan)
    columns = [dataclasses.replace(plan.columns[0], augment=name) for name in ("light", "strong")]
    both = dataclasses.replace(plan, roles=plan.roles[:, [0, 0]], columns=tuple(columns))
    together = train(data, both, recipe)
    for member, name in zip(together, ("light", "strong"), strict=True):
        alone = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, augment=name))
        (single,) = train(data, plan.only([0]), alone)
        for key, value in single.network.state_dict().items():
            # the stream of both holds the same rows
            assert torch.equal(value, member.network.state_dict()[key]), key


def test_rows_that_a_fold_is_scored_on_have_no_say_in_its_augmentation() -> None:
    data = pictures()
    recipe = from_flat({**SMALL, "augment": "none,light", "test": 0.0})
    first = ayatori.run(data, recipe)
    scored = first.plan.rows(0, SCORE)
    labels = data.labels.copy()
    labels[scored] = 1 - labels[scored]
    moved = dataclasses.replace(data, target=labels)
    from ayatori.train import Desk, compare_augments

    plain = dataclasses.replace(
        first.plan, columns=tuple(dataclasses.replace(c, augment="") for c in first.plan.columns)
    )
    seen = compare_augments(moved, plain, first.recipe, Desk(lambda part: None))
    assert [line[0] for line in seen.facts["losses"]] == [line[0] for line in first.augment["losses"]]


def test_to_compare_before_a_frozen_network_is_refused() -> None:
    from ayatori.augment import resolve

    with pytest.raises(AyatoriError, match="did you mean 'light'"):
        resolve("none,lihgt")
    data = dataclasses.replace(
        pictures(), schema=dataclasses.replace(pictures().schema, source={"facts": {}})
    )
    with pytest.raises(AyatoriError, match="see the rows themselves"):
        settle(from_flat({**QUICK, "augment": "auto"}), data, make_plan(data, PlanRecipe(folds=2)))


@pytest.mark.parametrize("way", ["none", "sample"])
def test_no_member_ever_sees_a_row_that_is_not_its_own_not_even_mixed_in(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one fold are black, of the other white: what is mixed in shows."""
    data = pictures()
    plan = make_plan(data, PlanRecipe(folds=2, test=0.0))
    image = data.inputs["image"].copy()
    for row in range(len(data)):
        image[row] = 0 if plan.roles[row, 0] == 1 else 255
    data = dataclasses.replace(data, inputs={"image": image})
    recipe = settle(
        from_flat({**SMALL, "augment": {"mixup": 1.0, "cutmix": 1.0, "flip": 0.5}, "balance": way}),
        data,
        plan,
    )
    seen: list[tuple[int, float, float]] = []
    before = Stack.step

    def watched(self: Stack, given: Given, factor: float) -> None:
        for place, learner in enumerate(self.learners):
            rows = given.inputs["image"][place].float()
            if given.weight is not None:
                rows = rows[given.weight[place] > 0]
            seen.append((int(image[learner.rows[0]].max()), float(rows.min()), float(rows.max())))
        before(self, given, factor)

    monkeypatch.setattr(Stack, "step", watched)
    train(data, plan, recipe)
    own = [line for line in seen if line[0] == 0]
    assert own
    assert all(high == 0 for _, _, high in own)
    assert {STOP, SCORE} <= set(np.unique(plan.roles))


def test_a_loss_of_ones_own_and_mixed_rows_do_not_go_together() -> None:
    def own(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, target)

    with pytest.raises(AyatoriError, match="knows codes"):
        ayatori.run(pictures(), from_flat({**SMALL, "loss": own, "augment": {"mixup": 0.2}}))


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_mixed_and_noisy_rows_of_a_table_teach(task: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 5))
    y: Any = x[:, 0] > 0
    if task == "multilabel":
        y = np.stack([x[:, 0] > 0, x[:, 1] > 0.5], 1).astype(int)
    elif task == "regression":
        y = 2 * x[:, 0] + x[:, 1]
    how = {"mixup": 0.3, "jitter": 0.05, "hide": 0.05, "swap": 0.05}
    result = ayatori.run(x, from_flat({**QUICK, "net": "mlp", "epochs": 25, "augment": how}), y=y)
    name = "r2" if task == "regression" else "accuracy"
    assert result.leaderboard[0].scores[name].value > 0.85


# views in prediction


def test_predictions_are_the_mean_of_the_views_and_do_not_depend_on_other_rows(tmp_path: Path) -> None:
    data = pictures()
    result = ayatori.run(data, from_flat({**SMALL, "augment": "standard", "tta": 3}), out=tmp_path / "run")
    model = load_model(tmp_path / "run")
    assert model.tta == ("standard", 3)
    said = model.predict_values(data)
    few = dataclasses.replace(data, inputs={"image": data.inputs["image"][5:8]}, ids=data.ids[5:8])
    np.testing.assert_allclose(model.predict_values(few), said[5:8], atol=1e-5)
    with torch.inference_mode():
        seen = torch.from_numpy(data.inputs["image"])
        each = [net.predict(view({"image": seen})) for net in model.networks for view in views("standard", 3)]
    np.testing.assert_allclose(torch.stack(each).mean(0).numpy(), said, atol=1e-5)
    sealed = np.flatnonzero(result.plan.sealed)
    blend = next(b for b in result.blends if b.split == "test" and b.name == result.chosen)
    np.testing.assert_allclose(blend.values[sealed], said[sealed], atol=1e-5)


def test_settings_from_a_file_are_in_the_recipe_so_that_the_run_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text('base = "light"\nturn = 3\n')
    recipe = from_flat({**SMALL, "epochs": 1, "augment": str(tmp_path / "mine.toml")})
    first = ayatori.run(pictures(), recipe, out=tmp_path / "run")
    (tmp_path / "mine.toml").unlink()
    written = from_toml((tmp_path / "run" / "recipe.toml").read_text())
    assert dict(written.train.augment) == {"base": "light", "turn": 3}
    again = ayatori.run(pictures(), written)
    np.testing.assert_array_equal(first.predictions.values, again.predictions.values)
    assert json.loads((tmp_path / "run" / "augment.json").read_text())["how"] == {"base": "light", "turn": 3}


def test_a_transform_that_cannot_be_named_keeps_to_memory(tmp_path: Path) -> None:
    from torchvision.transforms import v2

    recipe = from_flat({**SMALL, "epochs": 1, "augment": v2.RandomHorizontalFlip(0.5)})
    ayatori.run(pictures(), recipe)
    with pytest.raises(AyatoriError, match="package:function"):
        ayatori.run(pictures(), recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_rotation_balances_and_delivers_a_network_that_was_balanced() -> None:
    data = pictures(rows=180)
    for test in (0.0, 0.2):
        recipe = from_flat({**SMALL, "strategy": "rotate", "balance": "weight", "test": test})
        result = ayatori.run(data, recipe)
        assert {column.kind for column in result.plan.columns} == {"fold"}
        assert result.model.rule is not None


@pytest.mark.parametrize("kinds", [("bagging", "greedy"), ("stacking",), ("boosting",)])
def test_ensembles_of_balanced_networks_are_decided_as_their_networks_are(kinds: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(360) % 9 == 0).astype(int)
    x = rng.normal(size=(360, 3)) + 1.3 * y[:, None]
    names = np.where(y == 1, "rare", "usual")
    more = {"net": "mlp", "folds": 3, "balance": "weight", "ensemble": kinds, "bags": 2, "rounds": 2}
    result = ayatori.run(x, from_flat({**QUICK, **more}), y=names)
    networks = [blend for blend in result.blends if blend.network and "not balanced" not in blend.name]
    assert len(networks) > 2
    for blend in networks:
        assert blend.decided is not None, blend.name
        rows = np.flatnonzero(blend.rows)
        rare, values = result.dataset.classes.index("rare"), blend.values[rows]
        called = [(part.argmax(1) == rare).sum() for part in (blend.decided[rows], values)]
        assert called[0] >= called[1], blend.name
    rivals = [blend for blend in result.blends if not blend.network or "not balanced" in blend.name]
    assert all(blend.decided is None for blend in rivals)


def test_a_transform_of_ones_own_draws_the_same_on_several_threads() -> None:
    from torchvision.transforms import v2

    data = pictures()
    how = v2.RandomAffine(30, (0.2, 0.2))
    settings = {**SMALL, "epochs": 2, "balance": "sample", "balance_price": False, "augment": how}
    one, two = (ayatori.run(data, from_flat({**settings, "threads": threads})) for threads in (1, 2))
    np.testing.assert_allclose(one.predictions.values, two.predictions.values, atol=1e-5)
