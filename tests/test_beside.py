"""Columns beside files: read by the development rows, learned of own rows alone, predicted, exported."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ENGINES, assert_close, command, pictures, plain_loop, settled
from look_browser import CHROMIUM, Browser
from PIL import Image
from starlette.testclient import TestClient
from test_serve import running_server
from test_stack import assert_foreign_rows_change_nothing

from ayatori import load
from ayatori.data import load_like
from ayatori.evaluate.matrix import whole_table
from ayatori.export.whole import Whole, sample_inputs
from ayatori.model import Model
from ayatori.model_files import load_model
from ayatori.nets import build, measure
from ayatori.nets.beside import Beside, files_alone, has_beside
from ayatori.recipe import DataRecipe, NetRecipe, change
from ayatori.records import AyatoriError, Dataset, SchemaError
from ayatori.serve import make_app
from ayatori.train import train

QUICK = ("--preset", "quick", "--folds", "3", "--no-look")


def beside(n: int = 240, seed: int = 0) -> Dataset:
    """Pictures in memory, with a number and a category beside each, both with gaps."""
    plain, random = pictures(n, seed), np.random.default_rng(seed)
    numbers = (plain.labels + random.normal(size=n))[:, None]
    numbers[::7] = np.nan  # in the rows of every member: so all have networks of one shape
    schema = dataclasses.replace(plain.schema, numbers=("age",), categories={"sex": ("f", "m")})
    columns = {"numbers": numbers, "categories": random.integers(-1, 2, (n, 1)).astype(np.int32)}
    return dataclasses.replace(plain, inputs={**plain.inputs, **columns}, schema=schema)


def patients(folder: Path, n: int = 150, seed: int = 0) -> pd.DataFrame:
    """Files and columns that tell together who is ill: half of what tells is in either."""
    random = np.random.default_rng(seed)
    (folder / "scans of all").mkdir(parents=True, exist_ok=True)
    light, age = random.normal(size=n), random.normal(size=n)
    names = [f"scans of all/é {seed} {row}.png" for row in range(n)]
    for name, value in zip(names, light, strict=True):
        pixels = np.clip(120 + 40 * value + random.normal(0, 20, (12, 12)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
    return pd.DataFrame(
        {
            "file": names,
            "age": 50 + 15 * age,
            "sex": random.choice(["f", "m", ""], n),
            "seen": pd.date_range("2024-01-01", periods=n).strftime("%Y-%m-%d"),
            "remark": [
                f"patient {row} came with {random.choice(['pain', 'fever', 'cough'])}" for row in range(n)
            ],
            "ill": np.where(light + age > 0, "yes", "no"),
        }
    )


def table_of(folder: Path, n: int = 150, seed: int = 0, name: str = "patients.csv") -> Path:
    frame = patients(folder, n, seed)
    frame.to_csv(folder / name, index=False)
    return folder / name


# reading


def test_columns_that_are_named_stand_beside_the_files_and_others_are_left_out(tmp_path: Path) -> None:
    path = table_of(tmp_path)
    frame = pd.read_csv(path)
    dataset = load(path, recipe=DataRecipe(target="ill", beside=("sex", "age", "sex")))
    np.testing.assert_array_equal(dataset.inputs["numbers"][:, 0], frame["age"])
    assert dataset.schema.categories == {"sex": ("f", "m")}
    assert dataset.inputs["image"].shape == (150, 1, 12, 12)
    assert any("are left out: seen, remark; --beside learns" in note for note in dataset.notes)
    plain = load(path, target="ill")
    assert list(plain.inputs) == ["image"]
    assert dataset.fingerprint != plain.fingerprint
    every = load(path, recipe=DataRecipe(target="ill", beside=("all",)))
    assert set(every.inputs) == {"image", "numbers", "categories", "words"}
    assert every.begins is not None
    assert every.begins[7, 0].startswith("patient 7 came")


def test_rows_that_come_later_are_read_by_the_columns_of_earlier_ones(tmp_path: Path) -> None:
    path, test = table_of(tmp_path), table_of(tmp_path, 40, 1, "test.csv")
    later = pd.read_csv(test)
    later["sex"] = "007"  # what looks like a number stays the text that it is
    later[["ill", "remark", "sex", "seen", "file", "age"]].to_csv(test, index=False)
    dataset = load(path, recipe=DataRecipe(target="ill", beside=("all",)), test=test)
    alone = load(path, recipe=DataRecipe(target="ill", beside=("all",)))
    assert dataset.schema.numbers == alone.schema.numbers  # the test decides nothing
    assert (dataset.inputs["categories"][150:] == -1).all()
    again = load_like(test, dataset.schema)
    for name, values in again.inputs.items():
        np.testing.assert_array_equal(values, dataset.inputs[name][150:])


def test_rows_of_broken_pictures_and_without_a_target_take_their_columns_with_them(tmp_path: Path) -> None:
    frame = patients(tmp_path)
    frame.loc[5, "ill"] = None
    frame.to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / frame["file"][9]).write_bytes(b"no picture")
    dataset = load(tmp_path / "t.csv", recipe=DataRecipe(target="ill", beside=("age",)))
    np.testing.assert_array_equal(dataset.inputs["numbers"][:, 0], frame["age"].drop([5, 9]))
    assert len(dataset.ids) == len(dataset.inputs["image"]) == 148


def test_what_cannot_stand_beside_files_is_refused_by_one_sentence(tmp_path: Path) -> None:
    path = table_of(tmp_path)
    for wrong, said in (("ill", "has another use"), ("agee", "did you mean 'age'")):
        with pytest.raises(AyatoriError, match=said):
            load(path, recipe=DataRecipe(target="ill", beside=(wrong,)))
    frame = pd.read_csv(path).drop(columns="file")
    with pytest.raises(AyatoriError, match="no column of the table is known to name files"):
        load(frame, recipe=DataRecipe(target="ill", beside=("age",)))
    with pytest.raises(AyatoriError, match="beside must name a column of a table"):
        load(tmp_path / "scans of all", recipe=DataRecipe(target=0, beside=("age",)))  # type: ignore[arg-type]
    schema = load(path, recipe=DataRecipe(target="ill", beside=("age",))).schema
    with pytest.raises(AyatoriError, match="must be a table with the columns beside the files"):
        load(path, recipe=DataRecipe(target="ill", beside=("age",)), test=tmp_path / "scans of all")
    with pytest.raises(SchemaError, match="must come with the columns age"):
        load_like(tmp_path / "scans of all", schema)
    pd.read_csv(path).drop(columns="age").to_csv(tmp_path / "without.csv", index=False)
    with pytest.raises(AyatoriError, match="column 'age' must be in the table"):
        load_like(tmp_path / "without.csv", schema)


# networks


def test_what_files_and_columns_say_adds_up() -> None:
    dataset = beside()
    network = build(NetRecipe("cnn"), dataset, measure(dataset.inputs, dataset.schema), seed=3).eval()
    network.fit(dataset.inputs, None)
    rows = {name: torch.from_numpy(values[:9]) for name, values in dataset.inputs.items()}
    assert isinstance(network.body, Beside)
    torch.nn.init.normal_(network.body.columns.last.weight)
    seen = network.front(rows)
    expected = network.body.files(seen[0]) + network.body.columns(seen[1])
    torch.testing.assert_close(network(rows), expected)
    other = {**rows, "numbers": rows["numbers"] + 3}
    assert not torch.allclose(network(other), expected)


@pytest.mark.parametrize("net", ["cnn", "linear"])
@pytest.mark.parametrize("engine", ENGINES)
def test_columns_a_member_may_not_see_change_nothing_of_it(engine: str, net: str) -> None:
    dataset = beside()
    plan, recipe = settled(dataset, net=net, engine=engine, epochs=2)
    assert_foreign_rows_change_nothing(dataset, plan, recipe, (np.nan, 1))


@pytest.mark.parametrize("engine", ENGINES)
def test_networks_with_columns_come_to_what_a_plain_loop_comes_to(engine: str) -> None:
    dataset = beside()
    plan, recipe = settled(dataset, net="linear", engine=engine)
    recipe = change(recipe, "loss", label_smoothing=0.0)
    for member in train(dataset, plan, recipe):
        assert_close(member, plain_loop(dataset, plan, recipe, member.index))


def test_rivals_see_columns_too() -> None:
    dataset = beside()
    table, kinds = whole_table(dataset)
    np.testing.assert_array_equal(table[:, kinds["numbers"]], dataset.inputs["numbers"])
    assert {"pixels", "categories"} < set(kinds)
    alone = files_alone(dataset)
    assert list(alone.inputs) == ["image"]
    assert not has_beside(alone.schema)


# all the way


def figures(run: Path) -> dict[str, float]:
    result = json.loads((run / "result.json").read_text())
    return {
        f"{entry['split']} {entry['name']}": entry["scores"]["accuracy"]["value"]
        for entry in result["leaderboard"]
    }


def served_as_predicted(model: Model, frame: pd.DataFrame, folder: Path, said: pd.DataFrame) -> None:
    """A service is given each row's columns as JSON, with its file in base64."""
    files = [base64.b64encode((folder / name).read_bytes()).decode() for name in frame["file"]]
    columns = frame[["age", "sex"]].astype(object).where(frame[["age", "sex"]].notna(), None)
    rows = [line | {"file": file} for line, file in zip(columns.to_dict("records"), files, strict=True)]
    app = make_app(model, max_rows=100, max_bytes=10**6)
    with TestClient(app, "http://127.0.0.1") as client:
        reply = client.post("/predict", json={"rows": rows}).json()["rows"]
        assert [line["label"] for line in reply] == said["label"].tolist()
        np.testing.assert_allclose([line["probabilities"]["yes"] for line in reply], said["p_yes"], atol=1e-6)
        assert 'type="file" name="file"' in client.get("/").text
        for wrong, why in (
            ({"age": 3, "sex": "f"}, "must be an object with"),
            ({"age": 3, "file": files[0]}, "must have the column 'sex'"),
            (rows[0] | {"file": "no base64"}, "must be base64 of a file"),
        ):
            refused = client.post("/predict", json={"rows": [wrong]})
            assert refused.status_code == 422
            assert why in refused.json()["error"]
        assert client.post("/predict", content=b"x", headers={"Content-Type": "image/png"}).status_code == 415
        request = client.get("/openapi.json").json()["components"]["schemas"]["Request"]
        assert request["properties"]["rows"]["items"]["required"] == ["age", "sex", "file"]


def test_a_run_with_columns_tells_what_neither_tells_alone_and_is_predicted_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = table_of(tmp_path, 300), tmp_path / "run"
    words = ("run", path, "--target", "ill", "--beside", "age,sex", "--preset", "good", "--epochs", "12")
    assert not command(monkeypatch, *words, "--folds", "3", "-o", out)
    own = next(value for name, value in figures(out).items() if name.startswith("out_of_fold one network"))
    assert own > 0.85  # age alone, or the picture alone, tells 75 %
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "1 number" in page
    assert re.search(r"age [\d.]+, sex [fm]", page)  # beside the pictures of the worst mistakes
    assert re.search(r"with the columns of other rows [\d.]+.%, with the pictures of other rows", page)
    fresh = table_of(tmp_path, 60, 5, "new.csv")
    pd.read_csv(fresh).drop(columns="ill").to_csv(tmp_path / "unlabelled.csv", index=False)
    assert not command(monkeypatch, "predict", out, tmp_path / "unlabelled.csv", "-o", tmp_path / "p.csv")
    said = pd.read_csv(tmp_path / "p.csv")
    assert (said["label"].to_numpy() == pd.read_csv(fresh)["ill"]).mean() > 0.8
    model = load_model(out)
    whole = Whole(model)
    inputs = sample_inputs(whole, model.schema, 20)
    assert list(inputs) == ["image", "numbers", "categories"]
    given = Dataset(inputs, None, model.schema, np.arange(20).astype(str))
    values, _ = whole(*(torch.from_numpy(inputs[name]) for name in whole.names))
    np.testing.assert_allclose(values.detach().numpy(), model.predict_values(given), atol=1e-5)
    assert not command(monkeypatch, "export", out, "--onnx", tmp_path / "m.onnx")
    assert command(monkeypatch, "predict", out, tmp_path / "scans of all", "-o", tmp_path / "q.csv") == 2
    capsys.readouterr()
    served_as_predicted(model, pd.read_csv(fresh), tmp_path, said)


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
def test_the_page_of_a_service_sends_the_columns_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = table_of(tmp_path, 60), tmp_path / "run"
    words = ("run", path, "--target", "ill", "--beside", "age,sex", *QUICK, "--epochs", "1")
    assert not command(monkeypatch, *words, "--baselines", "none", "-o", out)
    name = pd.read_csv(path)["file"][0]
    picture = base64.b64encode((tmp_path / name).read_bytes()).decode()
    with running_server(out) as (_, address), Browser(tmp_path / "profile") as browser:
        browser.open(address)
        browser.run(
            f"""(() => {{
              const raw = Uint8Array.from(atob("{picture}"), letter => letter.charCodeAt(0));
              const chosen = new DataTransfer(), form = document.querySelector("#one");
              chosen.items.add(new File([raw], "one.png", {{type: "image/png"}}));
              form.elements.file.files = chosen.files;
              form.elements[0].value = "61";
              form.requestSubmit();
            }})()"""
        )
        browser.wait_for("document.querySelector('#answer tbody img')")
        assert re.search(r"(yes|no)\n(.|\n)*%", browser.run("document.querySelector('#answer').innerText"))
        assert browser.complaints() == []


@pytest.mark.parametrize("finetune", ["none", "auto", "all"])
def test_columns_stand_beside_a_run_that_is_built_upon(
    finetune: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table_of(tmp_path, 120)
    common = ("run", path, "--target", "ill", *QUICK, "--baselines", "none")
    assert not command(monkeypatch, *common, "-o", tmp_path / "plain")
    on = ("--pretrained", tmp_path / "plain", "--finetune", finetune, "--beside", "age,remark")
    assert not command(monkeypatch, *common, *on, "-o", tmp_path / "both")
    assert not command(monkeypatch, "predict", tmp_path / "both", path, "-o", tmp_path / "p.csv")
    assert pd.read_csv(tmp_path / "p.csv").shape[0] == 120
    model = load_model(tmp_path / "both")
    whole = Whole(model)
    inputs = sample_inputs(whole, model.schema, 5)
    assert list(inputs) == ["image", "numbers", "words"]
    assert len(whole(*(torch.from_numpy(inputs[name]) for name in whole.names))[0]) == 5


def test_a_run_that_learned_from_columns_beside_files_is_no_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table_of(tmp_path, 90)
    common = ("run", path, "--target", "ill", *QUICK, "--epochs", "1", "--baselines", "none")
    assert not command(monkeypatch, *common, "--beside", "age", "-o", tmp_path / "one")
    assert command(monkeypatch, *common, "--pretrained", tmp_path / "one", "-o", tmp_path / "two") == 2
    assert "use a run without --beside" in capsys.readouterr().err


def test_series_and_ensembles_take_columns_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    rows = []
    for row in range(90):
        kind, extra = row % 2, random.normal()
        steps = np.cumsum(random.normal(size=30)) + kind * np.linspace(0, 8, 30)
        pd.DataFrame({"value": steps}).to_csv(tmp_path / f"s{row}.csv", index=False)
        rows.append((f"s{row}.csv", extra, "up" if kind + 0.3 * extra > 0.5 else "level"))
    pd.DataFrame(rows, columns=["file", "extra", "kind"]).to_csv(tmp_path / "all.csv", index=False)
    words = ("run", tmp_path / "all.csv", "--beside", "extra", *QUICK, "--epochs", "2")
    ensembles = ("--ensemble", "mean,bagging,stacking", "--bags", "2")
    assert not command(monkeypatch, *words, *ensembles, "-o", tmp_path / "out")
    assert not command(
        monkeypatch, "predict", tmp_path / "out", tmp_path / "all.csv", "-o", tmp_path / "p.csv"
    )
    assert command(monkeypatch, "serve", tmp_path / "out", "--port", "0") == 2
    assert "series must stand alone to be served" in capsys.readouterr().err
    schema = load_model(tmp_path / "out").schema
    assert schema.kind == "series"
    assert schema.numbers == ("extra",)


def test_the_look_names_a_column_beside_files_that_gives_the_target_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = patients(tmp_path, 120)
    frame.insert(1, "ward", np.where(frame["ill"] == "yes", "B", "A"))
    frame.to_csv(tmp_path / "t.csv", index=False)
    words = ("explore", tmp_path / "t.csv", "--target", "ill", "--beside", "age,ward")
    assert not command(monkeypatch, *words, "-o", tmp_path / "look")
    assert "column 'ward' alone gives the target away" in " ".join(capsys.readouterr().out.split())
