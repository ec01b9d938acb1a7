"""A model as one file for other programs says what the model says, from raw values on."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch

import ayatori
from ayatori import load
from ayatori.export import OPSET, to_onnx, to_torch
from ayatori.model import Model
from ayatori.model_files import load_model
from ayatori.recipe import from_flat
from ayatori.records import AyatoriError, Dataset, Group, Vote
from tests.helpers import command

QUICK = {"epochs": 3, "baselines": (), "look": False, "folds": 2, "preset": "quick"}
HOSTILE = ("<b>red</b>", 'naïve "quotes"', "日本 \u202ertl", "it's, a; comma")


def mixed(n: int = 160, task: str = "classification") -> pd.DataFrame:
    """Numbers with gaps, categories few and many, dates; names that are no identifiers."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            'large, "x"': rng.normal(size=n) * 1e5 + 3e6,
            "gaps": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
            "colour <i>": rng.choice(HOSTILE, n),
            "town": [f"t{k}" for k in rng.integers(0, 15, n)],
            "day": pd.date_range("2024-01-01", periods=n, freq="31h").astype(str),
        }
    )
    table.loc[::13, "colour <i>"] = ""
    score = table["gaps"].fillna(0) + (table["colour <i>"] == HOSTILE[0]) + rng.normal(size=n) / 3
    if task == "regression":
        return table.assign(target=score)
    return table.assign(target=np.where(score > 0.8, "élevé", np.where(score > 0, "mid\nline", "<low>")))


def pictures(n: int = 80, channels: int = 1, side: int = 10) -> Dataset:
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    x = rng.integers(0, 150, (n, channels, side, side))
    x[y == 1, :, 2:6, 2:6] += 90
    return load(x.astype(np.uint8), y=y.astype(str))


def several_labels(n: int = 120) -> Dataset:
    x = np.random.default_rng(0).normal(size=(n, 4))
    return load(x, y=(x[:, :3] > 0).astype(int))


def asked(path: Path, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def test_a_table_goes_from_its_cells_to_the_probabilities_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    mixed().to_csv(tmp_path / "t.csv", index=False)
    data = load(tmp_path / "t.csv", target="target")
    result = ayatori.run(data, from_flat(QUICK), out=tmp_path / "run")
    assert command(monkeypatch, "export", tmp_path / "run", "--onnx", tmp_path / "model.onnx") == 0
    assert f"opset {OPSET}" in capsys.readouterr().out
    cells = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    days = pd.to_datetime(cells["day"])
    since = (days - pd.Timestamp("2000-01-01")) / pd.Timedelta(days=1)
    parts = {"days": since, "month": days.dt.month, "weekday": days.dt.day_of_week, "hour": days.dt.hour}
    file = onnx.load(tmp_path / "model.onnx")
    facts = json.loads(next(item.value for item in file.metadata_props if item.key == "ayatori"))
    columns = [
        parts[name.removeprefix("day: ")] if name.startswith("day: ") else pd.to_numeric(cells[name])
        for name in facts["numbers"]
    ]
    words = cells[list(facts["categories"])].to_numpy(object)
    said = asked(
        tmp_path / "model.onnx", {"numbers": np.stack(columns, 1).astype(float), "categories": words}
    )
    kept = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    kept = kept[(kept["split"] == "test") & (kept["name"] == result.model.name)]
    np.testing.assert_allclose(
        said["probabilities"][kept["row"]], kept[[f"p_{name}" for name in facts["classes"]]], atol=1e-4
    )
    table = result.model.predict_table(result.model.read(tmp_path / "t.csv"))
    assert said["label"].tolist() == table["label"].tolist()
    assert set(said["label"]) <= {"élevé", "mid\nline", "<low>"}


def a_run(data: Dataset, **settings: Any) -> Model:
    return ayatori.run(data, from_flat({**QUICK, **settings})).model


KINDS = {
    "mlp": lambda: a_run(load(mixed(), target="target")),
    "linear": lambda: a_run(load(mixed(), target="target"), net="linear"),
    "numbers to learn": lambda: a_run(load(mixed(task="regression"), target="target")),
    "several labels": lambda: a_run(several_labels(), decide="macro_f1"),
    "balanced": lambda: a_run(load(mixed(), target="target"), balance="weight", balance_price=False),
    "one network": lambda: a_run(load(mixed(), target="target"), strategy="holdout"),
    "bags": lambda: a_run(load(mixed(), target="target"), ensemble=("bagging",), bags=2),
    "weighted": lambda: a_run(load(mixed(), target="target"), ensemble=("weighted",)),
    "some columns each": lambda: a_run(
        load(mixed(), target="target"), ensemble=("bagging",), bags=2, bag_features=0.5
    ),
    "cnn": lambda: a_run(pictures()),
    "cnn, colour": lambda: a_run(pictures(channels=3, side=17), net="cnn"),
    "linear, pictures": lambda: a_run(pictures(), net="linear"),
    "views": lambda: a_run(pictures(), augment="light", tta=2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_network_says_the_same_in_onnx_and_in_torch_alone(kind: str, tmp_path: Path) -> None:
    model = KINDS[kind]()
    for written in (to_onnx(model, tmp_path / "m.onnx"), to_torch(model, tmp_path / "m.pt2")):
        assert 0 <= written.gap <= 1e-4
        assert written.path.is_file()
    if kind == "views":
        assert "averaged 2 views" in written.notes[0]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run on pictures that others go on from."""
    path = tmp_path_factory.mktemp("source") / "first"
    recipe = from_flat({**QUICK, "strategy": "holdout", "test": 0.0})
    ayatori.run(pictures(), recipe, out=path)
    return str(path)


@pytest.mark.parametrize("finetune", ["none", "last:1", "all"])
def test_networks_on_a_pretrained_one_go_whole_into_the_file(
    finetune: str, source: str, tmp_path: Path
) -> None:
    data = pictures(60)
    model = a_run(
        dataclasses.replace(data, inputs={"image": 255 - data.inputs["image"]}),
        pretrained=source,
        finetune=finetune,
        advise=False,
        epochs=2,
        dtype="float32",
    )
    assert to_onnx(model, tmp_path / "m.onnx").gap <= 1e-4
    assert to_torch(model, tmp_path / "m.pt2").notes == ()
    rounded = dataclasses.replace(
        model, schema=dataclasses.replace(model.schema, source={**model.schema.source, "dtype": "bfloat16"})
    )
    if finetune != "all":  # there nothing is frozen
        assert "rounds to bfloat16" in to_torch(rounded, tmp_path / "rounded.pt2").notes[0]


def test_a_table_on_another_run_finds_its_columns_and_words_by_name(tmp_path: Path) -> None:
    ayatori.run(load(mixed(), target="target"), from_flat(QUICK), out=tmp_path / "first")
    other = mixed().iloc[::-1].reset_index(drop=True)
    other['large, "x"'] += 17.5
    other = other.rename(columns={"gaps": "new"})[["town", "new", "colour <i>", 'large, "x"', "target"]]
    model = a_run(
        load(other, target="target"), pretrained=str(tmp_path / "first"), dtype="float32", advise=False
    )
    assert to_onnx(model, tmp_path / "m.onnx").gap <= 1e-4
    assert to_torch(model, tmp_path / "m.pt2").gap <= 1e-4


ALONE = """
import json, sys

closed = ("ayatori", "sklearn", "pandas", "scipy", "timm", "torchvision", "safetensors", "onnx", "PIL")
sys.modules.update(dict.fromkeys(closed))
import torch

extra = {"ayatori.json": ""}
program = torch.export.load(sys.argv[1], extra_files=extra)
facts = json.loads(extra["ayatori.json"])
probabilities, number = program.module()(torch.load(sys.argv[2], weights_only=True))
print(json.dumps({"classes": facts["classes"], "p": probabilities.tolist(), "number": number.tolist()}))
"""


def test_the_program_for_torch_needs_torch_alone(tmp_path: Path) -> None:
    data = pictures()
    model = a_run(data)
    to_torch(model, tmp_path / "m.pt2")
    torch.save(torch.from_numpy(data.inputs["image"][:7].copy()), tmp_path / "rows.pt")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path / "m.pt2"), str(tmp_path / "rows.pt")],
        capture_output=True,
        text=True,
        check=True,
    )
    said = json.loads(done.stdout)
    truth = model.predict_table(model.read(data.inputs["image"][:7]))
    np.testing.assert_allclose(said["p"], truth[["p_0", "p_1"]], atol=1e-5)
    assert [said["classes"][number] for number in said["number"]] == truth["label"].tolist()


def test_what_no_formula_holds_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    model = a_run(load(mixed(), target="target"))
    voters = Vote((Group(tuple(range(len(model.networks))), how="majority"),))
    model = dataclasses.replace(model, vote=voters)
    with pytest.raises(AyatoriError, match="votes by majority; export the network that --distill taught"):
        to_onnx(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_left_alone_and_nothing_to_write_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    ayatori.run(several_labels(), from_flat(QUICK), out=tmp_path / "run")
    (tmp_path / "mine.onnx").write_text("mine")
    assert command(monkeypatch, "export", tmp_path / "run", "--onnx", tmp_path / "mine.onnx") == 2
    assert "must be new" in capsys.readouterr().err
    assert (tmp_path / "mine.onnx").read_text() == "mine"
    assert command(monkeypatch, "export", tmp_path / "run") == 2
    assert "use --onnx model.onnx" in capsys.readouterr().err
    new = tmp_path / "new folder" / "m.pt2"
    assert command(monkeypatch, "export", tmp_path / "run", "--torch", new) == 0
    assert load_model(tmp_path / "run").name in capsys.readouterr().out
    assert new.is_file()


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = a_run(several_labels())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(AyatoriError, match=r"pip install 'ayatori\[onnx\]'"):
        to_onnx(model, tmp_path / "m.onnx")
