import copy
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn
from torch.func import functional_call, stack_module_state

import ayatori
from ayatori.nets import build
from ayatori.nets.mlp import Dropout, Fading, Periodic
from ayatori.nets.network import NetSpec, Network
from ayatori.nets.table import build_table, measure_table, table_defaults
from ayatori.nets.table_front import TableFront
from ayatori.plan import make_plan
from ayatori.recipe import NetRecipe, Recipe
from ayatori.records import AyatoriError, Schema
from ayatori.train import settle


def schema_of(*vocabularies, task="classification"):
    names = {f"c{i}": tuple(names) for i, names in enumerate(vocabularies)}
    return Schema(kind="table", task=task, classes=("no", "yes"), categories=names)


def fitted(inputs, schema):
    front = TableFront(measure_table(inputs, schema))
    front.fit(inputs)
    return front


def tensors(inputs):
    return {name: torch.from_numpy(np.asarray(values)) for name, values in inputs.items()}


def numbers_of(front, column, dtype=torch.float64):
    return front({"numbers": torch.tensor(column, dtype=dtype)[:, None]}).numbers[:, 0]


def mixed(rows=200, seed=0):
    rng = np.random.default_rng(seed)
    numbers = rng.normal([1e6, 0.0, 5.0], [1e3, 1e-3, 1.0], (rows, 3))
    numbers[rng.random(rows) < 0.2, 1] = np.nan
    categories = np.stack([rng.integers(-1, 3, rows), rng.integers(0, 20, rows), rng.integers(0, 2, rows)], 1)
    return {"numbers": numbers, "categories": categories.astype(np.int32)}


MIXED = schema_of("abc", [str(i) for i in range(20)], "xy")


def network(spec, inputs, target, seed=0):
    torch.manual_seed(seed)
    net = Network(*build_table(spec), spec)
    net.fit(inputs, target)
    return net


def test_numbers_are_centred_on_the_median_divided_by_the_quartile_range_and_clipped_smoothly():
    raw = np.random.default_rng(0).lognormal(3.0, 2.0, (501, 4))
    low, middle, high = np.percentile(raw, [25, 50, 75], axis=0)
    x = (raw - middle) / (high - low)
    expected = x / np.sqrt(1 + (x / 3) ** 2)
    found = fitted({"numbers": raw}, schema_of())(tensors({"numbers": raw})).numbers.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_column_with_most_values_equal_is_scaled_by_its_range_and_a_constant_one_vanishes():
    raw = np.array([[0.0, 7.0]] * 9 + [[8.0, 7.0]])
    front = fitted({"numbers": raw}, schema_of())
    found = front({"numbers": torch.tensor([[4.0, 9.0]], dtype=torch.float64)}).numbers
    assert found.tolist() == [[pytest.approx(1 / math.sqrt(1 + 1 / 9)), 0.0]]


def test_a_small_difference_on_a_large_value_survives():
    raw = 1e9 + np.random.default_rng(0).normal(0, 1e-2, 400)
    front = fitted({"numbers": raw[:, None]}, schema_of())
    low, middle, high = np.percentile(raw, [25, 50, 75])
    x = (raw - middle) / (high - low)
    np.testing.assert_allclose(numbers_of(front, raw).numpy(), x / np.sqrt(1 + (x / 3) ** 2), atol=1e-3)


def test_float32_inputs_give_the_same_as_float64_where_they_hold_the_same_values():
    raw = np.random.default_rng(0).integers(0, 256, 100).astype(float)
    front = fitted({"numbers": raw[:, None]}, schema_of())
    assert torch.equal(numbers_of(front, raw), numbers_of(front, raw, torch.float32))


@pytest.mark.parametrize("values", [[1e300, -1e300, 0.0], [1e-300, 2e-300, 0.0], [np.nan] * 3, [5.0] * 3])
def test_extreme_columns_stay_finite(values):
    front = fitted({"numbers": np.array(values)[:, None]}, schema_of())
    found = numbers_of(front, [*values, 0.0, 1e308, -1e308, np.nan, np.inf])
    assert found.isfinite().all()
    assert found.abs().max() <= 3


def test_a_gap_becomes_the_median_and_a_flag_if_own_rows_had_gaps():
    own = {"numbers": np.array([[1.0, 1.0], [2.0, 2.0], [3.0, np.nan], [2.0, np.nan]])}
    front = fitted(own, schema_of())
    new = {"numbers": torch.tensor([[np.nan, np.nan], [2.0, 1.5]], dtype=torch.float64)}
    assert front(new).flags.tolist() == [[1.0], [0.0]]
    assert front(new).numbers.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_a_category_unseen_in_own_rows_is_unknown_and_two_categories_share_one_flag():
    own = {"categories": np.array([[0, 5], [2, 7], [3, 5]] * 2, dtype=np.int32)}
    front = fitted(own, schema_of("abcde", "abcdefgh"))
    new = {"categories": torch.tensor([[0, 5], [2, 7], [3, 5], [1, 6], [-1, -1]], dtype=torch.int32)}
    expected = [[1, 0, 0, 1], [0, 1, 0, -1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert front(new).flags.tolist() == expected


def test_a_missing_category_is_a_category_of_its_own_if_own_rows_had_it():
    own = {"categories": np.array([[0], [1], [-1]] * 2, dtype=np.int32)}
    front = fitted(own, schema_of("abc"))
    new = {"categories": torch.tensor([[-1], [0], [1], [2]], dtype=torch.int32)}
    assert front(new).flags.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_a_category_that_few_own_rows_have_is_unknown():
    codes = np.repeat([0, 1, 2, 3], [100, 4, 95, 1])
    front = fitted({"categories": codes[:, None].astype(np.int32)}, schema_of("abcd"))
    new = {"categories": torch.tensor([[0], [1], [2], [3]], dtype=torch.int32)}
    assert front(new).flags.tolist() == [[1], [0], [-1], [0]]


def test_an_unknown_category_of_an_embedded_column_adds_nothing_before_training():
    codes = np.arange(200)[:, None] % 20
    own = {"categories": codes.astype(np.int32)}
    schema = schema_of([f"{code:02d}" for code in range(30)])
    net = network(NetSpec("mlp", "classification", 2, measure_table(own, schema)), own, codes[:, 0])
    features = net.front({"categories": torch.tensor([[3], [25], [-1]], dtype=torch.int32)})
    vectors = net.body.columns(features)
    assert vectors[0].abs().sum() > 0
    assert vectors[1:].abs().sum() == 0


def test_columns_with_many_categories_are_embedded_in_one_table_without_overlap():
    rng = np.random.default_rng(0)
    codes = np.stack([rng.permutation(400) % 12, rng.permutation(400) % 20], 1).astype(np.int32)
    front = fitted({"categories": codes}, schema_of([str(i) for i in range(12)], [str(i) for i in range(30)]))
    found = front(tensors({"categories": codes})).codes
    assert len(found[:, 0].unique()) == 12
    assert len(found[:, 1].unique()) == 20
    assert found[:, 0].max() < found[:, 1].min()
    assert found.max() < front.embedding_rows


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.sets(st.integers(0, 30), max_size=10))
def test_categories_of_foreign_rows_change_neither_weights_nor_outputs(codes, foreign):
    strings = sorted({f"{code:02d}" for code in codes})
    wider = sorted({*strings, *(f"{code:02d}" for code in foreign)})
    target = np.zeros(len(codes), dtype=np.int64)
    outputs = []
    for names in (strings, wider):
        own = {"categories": np.array([[names.index(f"{code:02d}")] for code in codes], dtype=np.int32)}
        spec = NetSpec("mlp", "classification", 2, measure_table(own, schema_of(names)))
        net = network(spec, own, target)
        outputs.append((net(tensors(own)), [*net.parameters()]))
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert all(map(torch.equal, outputs[0][1], outputs[1][1]))


def test_sizes_are_plain_json_and_rebuild_a_network_from_its_weights():
    own, target = mixed(), np.arange(200) % 3
    sizes = json.loads(json.dumps(measure_table(own, MIXED)))
    assert sizes == measure_table(own, MIXED)
    spec = NetSpec("mlp", "classification", 3, sizes)
    net = network(spec, own, target).eval()
    again = Network(*build_table(spec), spec).eval()
    again.load_state_dict(load(save(net.state_dict())))
    assert torch.equal(net.predict(tensors(own)), again.predict(tensors(own)))


@pytest.mark.parametrize("name", ["mlp", "linear"])
@pytest.mark.parametrize("kinds", [("numbers",), ("categories",), ("numbers", "categories")])
@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_every_kind_of_table_and_task_gives_finite_gradients(name, kinds, task):
    own = {kind: values for kind, values in mixed().items() if kind in kinds}
    schema = MIXED if "categories" in kinds else schema_of()
    target = np.random.default_rng(0).normal(size=(200, 3))
    spec = NetSpec(name, task, 3, measure_table(own, schema))
    net = network(spec, own, target)
    logits = net(tensors(own))
    assert logits.shape == (200, 3)
    logits.square().sum().backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in net.parameters())
    assert net.eval()(tensors({kind: values[:1] for kind, values in own.items()})).shape == (1, 3)


def test_rates_name_every_parameter_and_move_weights_by_the_width_of_their_input():
    own = mixed()
    spec = NetSpec("mlp", "classification", 3, measure_table(own, MIXED))
    _, body = build_table(spec)
    rates = body.rates()
    assert rates.keys() == dict(body.named_parameters()).keys()
    assert {name for name, (_, decay) in rates.items() if decay == 0} == {
        *(f"layers.{layer}.0.bias" for layer in range(3)),
        "last.bias",
    }
    assert rates["layers.1.0.weight"] == (1.0, 1.0)
    fan_in = body.layers[0][0].in_features
    assert rates["layers.0.0.weight"] == pytest.approx(((256 / fan_in) ** 0.5, (fan_in / 256) ** 0.5))


def test_stacked_networks_give_what_each_gives_alone():
    own = mixed()
    spec = NetSpec("mlp", "classification", 3, measure_table(own, MIXED))
    halves = [{kind: values[part::2] for kind, values in own.items()} for part in (0, 1)]
    nets = [network(spec, half, np.zeros(100), seed).eval() for seed, half in enumerate(halves)]
    parameters, buffers = stack_module_state(nets)  # type: ignore[arg-type]
    base = copy.deepcopy(nets[0]).to("meta")
    batch = tensors({kind: values[:32] for kind, values in own.items()})

    def one(parameters, buffers):
        return functional_call(base, (parameters, buffers), (batch,))

    together = torch.vmap(one)(parameters, buffers)
    for mine, net in zip(together, nets, strict=True):
        torch.testing.assert_close(mine, net(batch), atol=1e-5, rtol=1e-5)


def test_dropout_keeps_the_mean_drops_its_share_and_rests_in_evaluation():
    torch.manual_seed(0)
    layer = Dropout(0.15)
    found = layer(torch.ones(2000, 203))
    assert found.mean().item() == pytest.approx(1.0, abs=0.01)
    assert (found == 0).float().mean().item() == pytest.approx(38 / 256, abs=0.005)
    assert (found == 0).float().mean(0).std() < 0.02
    assert torch.equal(layer.eval()(torch.ones(3, 5)), torch.ones(3, 5))


def test_dropout_differs_between_stacked_networks():
    torch.manual_seed(0)
    found = torch.vmap(Dropout(0.5), randomness="different")(torch.ones(3, 20, 16))
    assert not torch.equal(found[0], found[1])


def test_periodic_embeddings_follow_their_formula():
    torch.manual_seed(0)
    layer = Periodic(2, 5, 3, 0.5)
    x = torch.randn(7, 2)
    w, c, a, d = (value.detach().numpy() for value in layer.parameters())
    for column in range(2):
        waves = np.cos(x.numpy()[:, column, None] * w[column] + c[column])
        expected = np.concatenate([x.numpy()[:, column, None], waves @ a[column] + d[column]], 1)
        found = layer(x).view(7, 2, 3)[:, column].detach().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("networks", [0, 3])
def test_the_way_back_of_a_fading_activation_is_that_of_its_formula(networks):
    torch.manual_seed(0)
    shape = (networks, 5, 4) if networks else (5, 4)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn((*shape[:-2], 4), dtype=torch.float64, requires_grad=True)
    layer = Fading(4, "SiLU").train()

    def faded(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    stacked = torch.func.vmap(faded) if networks else faded
    found = stacked(weight, x)
    expected = x + (weight if not networks else weight[:, None]) * (torch.nn.functional.silu(x) - x)
    torch.testing.assert_close(found, expected)
    pull = torch.randn_like(found)
    for own, wanted in zip(
        torch.autograd.grad(found, (x, weight), pull),
        torch.autograd.grad(expected, (x, weight), pull),
        strict=True,
    ):
        torch.testing.assert_close(own, wanted)


def test_a_fading_activation_starts_as_the_activation_and_can_become_the_identity():
    layer, x = Fading(4, "ReLU"), torch.randn(3, 4)
    torch.testing.assert_close(layer(x), x.relu())
    nn.init.zeros_(layer.weight)
    assert torch.equal(layer(x), x)


def accuracy_on_new_rows(name, make, steps, **options):
    own, target = make(1000, 0)
    spec = NetSpec(name, "classification", 2, measure_table(own, make.schema), options=options)
    net = network(spec, own, target)
    settings = table_defaults("classification", 1000, 2, name)
    rates = net.rates()
    groups = [
        {"params": [value], "lr": settings["learning_rate"] * rates[key][0]}
        for key, value in net.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    for _ in range(steps):
        rows = torch.randint(0, 1000, (128,))
        logits = net({kind: values[rows] for kind, values in tensors(own).items()})
        nn.functional.cross_entropy(logits, torch.from_numpy(target)[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    new, truth = make(1000, 1)
    return (net.eval()(tensors(new)).argmax(1).numpy() == truth).mean()


def checkerboard(rows, seed):
    """Yes where a category out of twelve and the sign of a number agree: no sum over columns can tell."""
    rng = np.random.default_rng(seed)
    number, category = rng.normal(100, 9, rows), rng.integers(0, 12, rows)
    target = ((number > 100) == (category % 2 == 0)).astype(np.int64)
    return {"numbers": number[:, None], "categories": category[:, None].astype(np.int32)}, target


checkerboard.schema = schema_of("abcdefghijkl")


def stairs(rows, seed):
    """Yes with the sum of a number and a category."""
    rng = np.random.default_rng(seed)
    number, category = rng.normal(0, 4, rows), rng.integers(0, 12, rows)
    target = (number + category > 6).astype(np.int64)
    return {"numbers": number[:, None], "categories": category[:, None].astype(np.int32)}, target


stairs.schema = checkerboard.schema


def test_the_mlp_learns_how_a_category_turns_a_number_and_the_linear_net_cannot():
    assert accuracy_on_new_rows("mlp", checkerboard, steps=100, width=64) > 0.95
    assert accuracy_on_new_rows("linear", checkerboard, steps=100) < 0.6
    assert accuracy_on_new_rows("linear", stairs, steps=300) > 0.9


def test_unknown_nets_and_options_are_refused_with_the_nearest_name():
    sizes = {"numbers": 1, "missing": [], "vocabulary": [], "known": []}
    with pytest.raises(AyatoriError, match=r"net of a table must be .*'mlpp'; did you mean 'mlp'"):
        build_table(NetSpec("mlpp", "classification", 2, sizes))
    with pytest.raises(AyatoriError, match=r"however: 'drop_out'; did you mean 'dropout'"):
        build_table(NetSpec("mlp", "classification", 2, sizes, options={"drop_out": 0.1}))
    with pytest.raises(AyatoriError, match="must be among: none; however: 'width'"):
        build_table(NetSpec("linear", "classification", 2, sizes, options={"width": 9}))


def test_options_and_activation_reach_the_network():
    sizes = {"numbers": 3, "missing": [1], "vocabulary": [2], "known": [2]}
    options = {"width": 20, "depth": 2, "dropout": 0.5, "numbers": "plain"}
    _, body = build_table(NetSpec("mlp", "regression", 1, sizes, "Tanh", options))
    kinds = [type(module) for module in body.modules()]
    assert sum(issubclass(kind, nn.Linear) for kind in kinds) == 3
    assert kinds.count(nn.Tanh) == 2
    assert Periodic not in kinds
    assert {m.p for m in body.modules() if isinstance(m, Dropout)} == {0.5}
    assert body.layers[0][0].weight.shape == (20, 5)


@given(
    st.integers(1, 3_000_000),
    st.sampled_from(["quick", "good", "best"]),
    st.sampled_from(["classification", "multilabel", "regression"]),
    st.sampled_from(["mlp", "linear"]),
)
def test_defaults_fit_any_number_of_rows(rows, preset, task, name):
    settings = table_defaults(task, rows, 2, name, preset)
    assert 1 <= settings["batch_size"] <= rows
    assert settings["epochs"] >= 2
    assert settings["patience"] >= 1
    if rows > 1_000_000:
        assert settings["epochs"] <= 20
    if rows < 1000:
        assert settings["epochs"] * max(1, rows // settings["batch_size"]) >= 100
    assert 0 <= settings["label_smoothing"] < 0.2


@pytest.mark.parametrize(
    ("rows", "preset", "asked", "dropout"),
    [(6000, "quick", {}, {0.0}), (6000, "quick", {"dropout": 0.3}, {0.3}), (600, "quick", {}, {0.15}),
     (6000, "good", {}, {0.15})],
)  # fmt: skip
def test_a_quick_run_on_many_rows_drops_nothing_unless_asked_to(rows, preset, asked, dropout):
    random = np.random.default_rng(0)
    dataset = ayatori.load(random.normal(size=(rows, 3)), y=random.integers(0, 2, rows))
    recipe = Recipe(preset=preset, net=NetRecipe(options=asked))
    recipe = settle(recipe, dataset, make_plan(dataset, recipe.plan))
    network = build(recipe.net, dataset, measure_table(dataset.inputs, dataset.schema), seed=0)
    assert {part.p for part in network.modules() if isinstance(part, Dropout)} == dropout
