"""The loop: compared with plain PyTorch, stopped, thrown off, interrupted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from ayatori.data import load
from ayatori.plan import make_plan
from ayatori.recipe import LossRecipe, NetRecipe, PlanRecipe, Recipe, TrainRecipe, change
from ayatori.records import SCORE, STOP, AyatoriError, Column, Dataset, Member, Plan
from ayatori.train import predict, settle, train
from ayatori.train.loop import Job, new_learners
from ayatori.train.loss import make_loss
from ayatori.train.stream import make_stream, own_order


def small(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], 16), nn.ReLU(), nn.Linear(16, outputs))


def dropping(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, outputs))


def blobs(n: int = 240, seed: int = 0) -> Dataset:
    random = np.random.default_rng(seed)
    target = random.integers(0, 3, n)
    return load(random.normal(size=(n, 4)) + 1.5 * np.eye(4)[target], y=target.astype(str))


def settled(dataset: Dataset, net=small, folds: int = 3, **train_settings) -> tuple[Plan, Recipe]:
    settings = {"epochs": 4, "batch_size": 32, "learning_rate": 0.01, "augment": "none"} | train_settings
    recipe = Recipe(
        net=NetRecipe(name=net), plan=PlanRecipe(folds=folds), train=TrainRecipe(**settings), seed=5
    )
    plan = make_plan(dataset, recipe.plan, recipe.seed)
    return plan, settle(recipe, dataset, plan)


def weights(member: Member) -> dict[str, torch.Tensor]:
    return member.network.state_dict()


def assert_same_weights(first: Member, second: Member) -> None:
    for name, value in weights(first).items():
        assert torch.equal(value, weights(second)[name]), name


def test_dropout_of_a_member_does_not_depend_on_who_trains_beside_it() -> None:
    dataset = blobs()
    plan, recipe = settled(dataset, net=dropping, patience=99)
    together = train(dataset, plan, recipe)
    # the stream is made of all members' rows, so a member alone is given the others' rows as idle columns
    shuffled = Plan(plan.roles[:, [1, 0, 2]], tuple(plan.columns[i] for i in (1, 0, 2)))
    other_order = train(dataset, shuffled, recipe)
    assert_same_weights(together[0], other_order[1])
    assert_same_weights(together[1], other_order[0])


def test_the_same_seed_gives_the_same_bytes_and_the_global_generator_is_left_alone() -> None:
    dataset = blobs()
    plan, recipe = settled(dataset, net=dropping)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = predict(train(dataset, plan, recipe), dataset, plan)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    second = predict(train(dataset, plan, recipe), dataset, plan)
    assert first.values.tobytes() == second.values.tobytes()


def changed(dataset: Dataset, plan: Plan, seed: int) -> Dataset:
    """The data with inputs and targets of sealed rows shuffled and scaled out of all bounds."""
    random = np.random.default_rng(seed)
    rows = np.flatnonzero(plan.sealed)
    numbers, target = dataset.inputs["numbers"].copy(), dataset.labels.copy()
    numbers[rows] = 1e6 * random.permutation(numbers[rows])
    target[rows] = random.permutation(target[rows])
    return dataclasses.replace(dataset, inputs={**dataset.inputs, "numbers": numbers}, target=target)


def test_sealed_rows_change_no_bit_of_any_weight() -> None:
    dataset = blobs()
    plan, recipe = settled(dataset)
    for first, second in zip(
        train(dataset, plan, recipe), train(changed(dataset, plan, 1), plan, recipe), strict=True
    ):
        assert_same_weights(first, second)


def test_held_out_rows_change_no_bit_of_the_member_that_is_scored_on_them() -> None:
    dataset = blobs()
    plan, recipe = settled(dataset)
    before = train(dataset, plan, recipe)
    for member in range(plan.members):
        rows = plan.rows(member, SCORE)
        numbers, target = dataset.inputs["numbers"].copy(), dataset.labels.copy()
        numbers[rows], target[rows] = numbers[rows][::-1] * -1e6, target[rows][::-1]
        other = dataclasses.replace(dataset, inputs={**dataset.inputs, "numbers": numbers}, target=target)
        assert_same_weights(before[member], train(other, plan, recipe)[member])


def test_a_column_that_gives_the_label_away_on_sealed_rows_alone_changes_nothing() -> None:
    dataset = blobs()
    plan, recipe = settled(dataset)
    column = np.zeros((len(dataset), 1))
    told = column.copy()
    told[plan.sealed, 0] = dataset.labels[plan.sealed] + 1
    plain, leaking = (
        dataclasses.replace(dataset, inputs={"numbers": np.hstack([dataset.inputs["numbers"], extra])})
        for extra in (column, told)
    )
    for first, second in zip(train(plain, plan, recipe), train(leaking, plan, recipe), strict=True):
        assert_same_weights(first, second)


def test_a_category_that_only_foreign_rows_have_is_unknown_to_a_member() -> None:
    random = np.random.default_rng(0)
    words = random.choice(["a", "b", "c"], 200)
    import pandas as pd

    frame = pd.DataFrame(
        {"word": words, "x": random.normal(size=200), "y": random.choice(["no", "yes"], 200)}
    )
    dataset = load(frame)
    plan, recipe = settled(dataset)
    sealed = np.flatnonzero(plan.sealed)
    frame.loc[sealed[:5], "word"] = "only in the test"
    with_new = load(frame)
    for first, second in zip(train(dataset, plan, recipe), train(with_new, plan, recipe), strict=True):
        for name, value in first.network.named_parameters():
            assert torch.equal(value, dict(second.network.named_parameters())[name]), name


def test_training_stops_when_the_stop_loss_rises_and_keeps_the_best_weights() -> None:
    random = np.random.default_rng(0)
    dataset = load(random.normal(size=(80, 20)), y=random.integers(0, 2, 80).astype(str))
    plan, recipe = settled(dataset, folds=2, epochs=200, patience=5, learning_rate=0.02)
    for member in train(dataset, plan, recipe):
        losses = [line.stop_loss for line in member.history]
        assert len(losses) < 200
        assert member.reason == "the stop loss had not improved for 5 epochs"
        assert member.best_epoch == len(losses) - 5
        assert losses[member.best_epoch - 1] == min(losses)
        rows = plan.rows(member.index, STOP)
        with torch.no_grad():
            logits = member.network({"numbers": torch.from_numpy(dataset.inputs["numbers"][rows])})
        again = F.cross_entropy(logits, torch.from_numpy(dataset.labels[rows])).item()
        assert again == pytest.approx(min(losses), rel=1e-5)


def faces(rows: int) -> Dataset:
    """Grey pictures of two classes, the second a little lighter."""
    random = np.random.default_rng(0)
    codes = np.arange(rows) % 2
    image = random.integers(0, 200, (rows, 1, 8, 8)) + 20 * codes[:, None, None, None]
    return load(image.astype(np.uint8), y=np.array(["dark", "light"])[codes])


def test_a_cnn_with_few_stop_rows_keeps_the_end_of_its_schedule() -> None:
    dataset = faces(60)
    plan, recipe = settled(dataset, net="cnn", epochs=12)
    recipe = change(recipe, "engine", dtype="float32")  # to compare losses to many digits
    assert recipe.train.keep == "last"
    members = train(dataset, plan, recipe)
    for member in members:
        assert member.best_epoch == len(member.history) == 12
        assert member.reason == "all 12 epochs were done, and the last one is kept"
    # what is kept is what the last epoch's loss was measured of
    rows = plan.rows(0, STOP)
    with torch.no_grad():
        logits = members[0].network({"image": torch.from_numpy(dataset.inputs["image"][rows])})
    own = F.cross_entropy(logits, torch.from_numpy(dataset.labels[rows])).item()
    assert own == pytest.approx(members[0].history[-1].stop_loss, rel=1e-4)
    # and another epoch had a lower loss: the rule is what decided
    lowest = [min(member.history, key=lambda line: line.stop_loss).epoch for member in members]
    assert min(lowest) < 12


@pytest.mark.parametrize(
    ("rows", "settings", "kept"),
    [
        (60, {}, "last"),
        (60, {"patience": 3}, "best"),  # who asks for patience wants the best
        (60, {"keep": "best"}, "best"),
        (600, {}, "best"),  # enough stop rows
        (600, {"keep": "last"}, "last"),
    ],
)
def test_which_epoch_is_kept_follows_from_the_stop_rows_and_from_what_was_asked(
    rows: int, settings: dict, kept: str
) -> None:
    plan, recipe = settled(faces(rows), net="cnn", **settings)
    assert recipe.train.keep == kept
    assert settle(recipe, faces(rows), plan) == recipe  # settling again changes nothing


def test_networks_of_tables_keep_the_best_of_their_epochs_however_few_the_stop_rows() -> None:
    dataset = blobs(60)
    assert settled(dataset, net="mlp")[1].train.keep == "best"


def test_a_word_for_the_epoch_that_is_not_known_is_refused_in_one_sentence() -> None:
    with pytest.raises(AyatoriError, match=r"`keep` must be one of auto, best, last, however: 'lats'.*last"):
        settled(faces(60), net="cnn", keep="lats")


def test_an_improvement_is_absolute_so_that_negative_losses_work_too() -> None:
    dataset = blobs()
    plan, recipe = settled(dataset, epochs=6, patience=2, min_delta=0.1, learning_rate=1e-6)

    def below_zero(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, target, reduction="none") - 100

    recipe = change(recipe, "loss", name=below_zero)
    assert all(len(member.history) == 3 for member in train(dataset, plan, recipe))


class Bursting(nn.Module):
    """Gives NaN once, in its third epoch of training ."""

    calls = 0

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(shape[0], outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        learns = self.training and len(x) > 4  # and is not only tried out
        Bursting.calls += learns
        scale = float("nan") if learns and Bursting.calls == 10 else 1.0
        return self.linear(x) * scale


def test_a_loss_that_is_not_finite_sends_the_member_back_with_smaller_steps() -> None:
    dataset = blobs()
    recipe = Recipe(
        plan=PlanRecipe(strategy="holdout"), train=TrainRecipe(epochs=8, batch_size=40, patience=99)
    )
    recipe = change(recipe, "net", name=Bursting)
    plan = make_plan(dataset, recipe.plan)
    Bursting.calls = 0
    member = train(dataset, plan, settle(recipe, dataset, plan))[0]
    noted = [line for line in member.history if line.note]
    assert [line.note for line in noted] == [
        "the loss was not finite: back to epoch 2, with steps 0.5 times as long"
    ]
    assert member.history[-1].epoch == 8
    assert np.isfinite(member.history[-1].stop_loss)
    assert all(bool(torch.isfinite(value).all()) for value in weights(member).values())


def test_a_loss_that_never_is_finite_ends_the_member_with_a_reason() -> None:
    dataset = blobs()
    plan, recipe = settled(dataset, epochs=50, patience=99)
    recipe = change(recipe, "loss", name=lambda logits, target: logits.sum(-1) * float("nan"))
    for member in train(dataset, plan, recipe):
        assert member.reason == "the loss was not finite 6 times"


def test_the_hook_sees_every_epoch_and_can_end_a_member() -> None:
    dataset = blobs()
    plan, recipe = settled(dataset, epochs=5, patience=99)
    seen = []

    def on_epoch(line) -> bool:
        seen.append((line.member, line.epoch))
        return line.member == 1 and line.epoch == 2

    members = train(dataset, plan, recipe, on_epoch=on_epoch)
    assert [len(member.history) for member in members] == [5, 2, 5]
    assert members[1].reason == "it was asked to stop"
    assert len(seen) == 12


def test_the_time_limit_ends_training_and_says_so() -> None:
    dataset = blobs()
    plan, recipe = settled(dataset, epochs=10_000, patience=10_000)
    members = train(dataset, plan, dataclasses.replace(recipe, time_limit=0.2))
    assert all(member.reason == "the time limit of 0.2 s" for member in members)


def test_a_row_that_counts_twice_is_drawn_twice_of_a_table_and_weighs_twice_among_pictures() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4)).astype(np.uint8)
    for dataset in (blobs(60), load(pixels, y=np.arange(60) % 3)):
        plan, recipe = settled(dataset, net="linear", folds=2, epochs=1)
        plan.roles[plan.train_rows(0)[:10], 0] = 2
        stream = make_stream(dataset, plan, change(recipe, "train", batch_size=1000))
        learner = new_learners(Job(dataset, plan, recipe, stream, torch.device("cpu")), [0])[0]
        pulls = learner.weight.astype(np.float64)
        if stream.shared is None:
            drawn = own_order(learner.drawn, dataclasses.replace(stream, size=len(learner.drawn)), 0, 0)
            pulls = pulls * np.bincount(drawn.ravel(), minlength=60)
        np.testing.assert_allclose(pulls / pulls.sum(), learner.counts / learner.counts.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "task", "reference"),
    [
        ("cross_entropy", "classification", lambda z, t: F.cross_entropy(z, t)),
        ("binary", "multilabel", lambda z, t: F.binary_cross_entropy_with_logits(z, t)),
        ("mse", "regression", lambda z, t: F.mse_loss(z, t)),
        ("mae", "regression", lambda z, t: F.l1_loss(z, t)),
        ("huber", "regression", lambda z, t: F.huber_loss(z, t, delta=0.7)),
    ],
)
def test_a_loss_is_that_of_torch_row_by_row(name: str, task, reference) -> None:
    torch.manual_seed(0)
    logits = torch.randn(9, 4)
    target = {
        "classification": torch.randint(0, 4, (9,)),
        "multilabel": torch.randint(0, 2, (9, 4)).float(),
        "regression": torch.randn(9, 4),
    }[task]
    losses = make_loss(LossRecipe(name=name, delta=0.7), task)(logits, target)
    assert losses.shape == (9,)
    torch.testing.assert_close(losses.mean(), reference(logits, target))


@given(
    name=st.sampled_from(["cross_entropy", "focal"]),
    soft=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1]),
    networks=st.integers(1, 4),
    rows=st.integers(1, 9),
    classes=st.integers(2, 6),
    classes_first=st.booleans(),
)
def test_the_loss_of_several_networks_is_that_of_each(
    name: str, soft: bool, smoothing: float, networks: int, rows: int, classes: int, classes_first: bool
) -> None:
    chance = torch.Generator().manual_seed(networks * rows + classes)
    logits = torch.randn(networks, classes, rows, generator=chance).mT
    logits = logits if classes_first else logits.contiguous()
    target = torch.randint(0, classes, (networks, rows), generator=chance)
    target = torch.rand(networks, rows, classes, generator=chance).softmax(-1) if soft else target
    loss = make_loss(LossRecipe(name=name), "classification", smoothing, soft)
    each = torch.stack([loss(mine, wanted) for mine, wanted in zip(logits, target, strict=True)])
    torch.testing.assert_close(loss(logits, target), each)


@given(rows=st.integers(40, 3000), batch_size=st.integers(1, 300))
def test_an_epoch_of_a_table_has_about_all_rows_and_one_of_many_steps_the_batch_size_that_was_asked_for(
    rows: int, batch_size: int
) -> None:
    dataset = blobs(rows)
    plan, recipe = settled(dataset, net="linear", folds=2, batch_size=batch_size)
    own = np.median([plan.counts(member).sum() for member in range(plan.members)])
    stream = make_stream(dataset, plan, recipe)
    assert stream.steps * stream.size == pytest.approx(own, abs=0.5 * max(stream.steps, stream.size) + 0.5)
    if own >= 17 * batch_size:
        assert stream.size == batch_size


def test_focal_loss_is_that_of_torchvision() -> None:
    from torchvision.ops import sigmoid_focal_loss

    torch.manual_seed(0)
    logits, target = torch.randn(9, 4), torch.randint(0, 2, (9, 4)).float()
    losses = make_loss(LossRecipe(name="focal", gamma=1.5), "multilabel")(logits, target)
    expected = sigmoid_focal_loss(logits, target, alpha=-1, gamma=1.5).mean(1)
    torch.testing.assert_close(losses, expected)


def test_the_quantile_loss_is_least_at_the_quantile() -> None:
    target = torch.linspace(0, 1, 101)[:, None]
    loss = make_loss(LossRecipe(name="quantile", quantile=0.8), "regression")
    totals = [loss(torch.full((101, 1), value), target).sum().item() for value in np.linspace(0, 1, 101)]
    assert np.argmin(totals) == pytest.approx(80, abs=1)


def test_a_class_weight_counts_the_rows_of_its_class_so_many_times() -> None:
    from ayatori.train import balance_rows

    dataset = blobs(30)
    recipe = Recipe(loss=LossRecipe(class_weights=(1.0, 1.0, 5.0)))
    weight = balance_rows(dataset, np.ones(30, np.uint8), True, recipe, Column()).weight
    assert weight.mean() == pytest.approx(1, rel=1e-5)
    heavy = dataset.labels == 2
    assert weight[heavy].min() == pytest.approx(5 * weight[~heavy].max(), rel=1e-5)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(AyatoriError, match="did you mean 'focal'"):
        make_loss(LossRecipe(name="focall"), "classification")
    with pytest.raises(AyatoriError, match="did you mean 'mlp'"):
        settled(blobs(), net="mpl")
    with pytest.raises(AyatoriError, match="can be imported"):
        settled(blobs(), net="nowhere:net")
    plan, recipe = settled(blobs())
    with pytest.raises(AyatoriError, match="one weight for each of the 3 classes"):
        train(blobs(), plan, change(recipe, "loss", class_weights=(1.0, 2.0)))


def test_a_module_of_the_users_own_starts_fresh_for_every_member() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    dataset = blobs()
    plan, recipe = settled(dataset, net=module, epochs=1, learning_rate=1e-12, warmup=0.0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    first, second, _ = train(dataset, plan, recipe)
    name = "body.module.0.weight"
    assert not torch.equal(weights(first)[name], weights(second)[name])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_loss_of_the_users_own_may_give_one_number_or_one_per_row() -> None:
    dataset = blobs()
    plan, recipe = settled(dataset, epochs=2)
    one = train(dataset, plan, change(recipe, "loss", name=lambda z, t: F.cross_entropy(z, t)))
    each = train(
        dataset, plan, change(recipe, "loss", name=lambda z, t: F.cross_entropy(z, t, reduction="none"))
    )
    for first, second in zip(one, each, strict=True):
        for name, value in weights(first).items():
            torch.testing.assert_close(value, weights(second)[name], rtol=1e-3, atol=1e-5)
    with pytest.raises(AyatoriError, match="one number, or one per row"):
        train(dataset, plan, change(recipe, "loss", name=lambda z, t: z.sum(0)))


def test_batch_normalisation_never_meets_a_single_row() -> None:
    def normed(shape: tuple[int, ...], outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(shape[0], 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs))

    dataset = blobs(24)
    plan, recipe = settled(dataset, net=normed, folds=2, batch_size=1)
    assert all(np.isfinite(member.history[-1].stop_loss) for member in train(dataset, plan, recipe))


def test_regression_is_learned_and_told_in_the_units_of_the_target() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 2))
    dataset = load(x, y=1e6 + 5e4 * x[:, 0])
    plan, recipe = settled(dataset, epochs=30, patience=60)
    predictions = predict(train(dataset, plan, recipe), dataset, plan)
    test = plan.sealed
    error = np.nanmean(predictions.values[:, test, 0], axis=0) - dataset.labels[test, 0]
    assert np.sqrt(np.mean(error**2)) < 0.2 * 5e4


def test_predictions_are_only_made_of_rows_that_a_member_never_saw() -> None:
    dataset = blobs()
    plan, recipe = settled(dataset, epochs=1)
    predictions = predict(train(dataset, plan, recipe), dataset, plan)
    for member in range(plan.members):
        seen = np.concatenate([plan.train_rows(member), plan.rows(member, STOP)])
        assert np.isnan(predictions.values[member, seen]).all()
        assert not predictions.unseen[member, seen].any()
        assert np.isfinite(predictions.values[member, plan.rows(member, SCORE)]).all()
    finite = predictions.values[predictions.unseen]
    np.testing.assert_allclose(finite.sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "net", "settings"), [(blobs, small, {"augment": {"jitter": 0.1}}), (faces, "cnn", {})]
)
def test_rows_that_are_picked_an_epoch_at_once_are_those_that_are_picked_step_by_step(
    monkeypatch: pytest.MonkeyPatch, make, net, settings
) -> None:
    dataset = make(150)
    plan, recipe = settled(dataset, net=net, epochs=3, **settings)
    weights = []
    for most in (0, 2**26):
        monkeypatch.setattr("ayatori.train.loop.DRAWN_BYTES", most)
        members = train(dataset, plan, recipe)
        weights.append([value for one in members for value in one.network.state_dict().values()])
    assert all(map(torch.equal, *weights))


def test_threads_side_by_side_give_the_same_bytes_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The MLP's own dropout draws from each member's own generator, whoever runs beside it."""
    dataset = blobs()
    plan, recipe = settled(dataset, net="auto", folds=5, epochs=3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    runs = [predict(train(dataset, plan, recipe), dataset, plan).values.tobytes() for _ in range(3)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    runs.append(predict(train(dataset, plan, recipe), dataset, plan).values.tobytes())
    assert len(set(runs)) == 1
