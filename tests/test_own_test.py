"""A column that says train and test parts the rows, and nothing is learned from it or from the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import command
from PIL import Image

from ayatori.data import load
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError


def frame(words: tuple[str, ...] = ("train", "train", "val", "test")) -> pd.DataFrame:
    chance = np.random.default_rng(0)
    table = pd.DataFrame(chance.normal(size=(120, 3)), columns=list("abc"))
    table["split"] = np.resize(np.array(words), 120)
    return table.assign(kind=np.where(table["a"] > 0, "yes", "no"))


@pytest.mark.parametrize(
    ("words", "tested"),
    [
        (("train", "train", "val", "test"), ["test"]),
        (("Training", "Testing", "Testing"), ["Testing"]),
        (("TRAIN", "valid", "Test", "testing"), ["Test", "testing"]),
        (("train", "train", "validation"), ["validation"]),
        (("train", "dev"), ["dev"]),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet", "xlsx", "feather", "frame"])
def test_a_column_that_tells_parts_the_rows(tmp_path: Path, words, tested, ending: str) -> None:
    table = frame(words)
    path = tmp_path / f"table.{ending}"
    writers = {"csv": table.to_csv, "parquet": table.to_parquet, "xlsx": table.to_excel}
    writers["feather"] = lambda path, index: table.to_feather(path)
    if ending == "frame":
        dataset = load(table, target="kind")
    else:
        writers[ending](path, index=False)
        dataset = load(path)
    here = table["split"].isin(tested)
    assert dataset.fixed_test is not None
    assert dataset.fixed_test.sum() == here.sum()
    whole = pd.concat([table[~here], table[here]])
    assert np.allclose(dataset.inputs["numbers"], whole[list("abc")])
    assert [dataset.classes[label] for label in dataset.labels] == whole["kind"].tolist()
    assert dataset.schema.numbers == ("a", "b", "c")
    assert not dataset.schema.categories
    assert any(f"the test is {here.sum()} rows" in note for note in dataset.notes)


def test_words_that_come_after_the_first_rows_count_too(tmp_path: Path) -> None:
    table = frame().sort_values("split", ascending=False, key=lambda words: words == "train")
    table.to_csv(tmp_path / "table.csv", index=False)
    assert load(tmp_path / "table.csv").fixed_test.sum() == 30  # type: ignore[union-attr]


@pytest.mark.parametrize("words", [("train",), ("test", "val"), ("train", "test", "other"), ("a", "b")])
def test_other_columns_stay_what_they_are(words: tuple[str, ...]) -> None:
    dataset = load(frame(words), target="kind")
    assert dataset.fixed_test is None
    assert len(dataset) == 120


def test_a_column_that_has_a_use_or_is_dropped_parts_nothing() -> None:
    assert load(frame(), recipe=DataRecipe(target="kind", drop=("split",))).fixed_test is None
    assert load(frame(), target="split").classes == ("test", "train", "val")
    assert load(frame(), recipe=DataRecipe(target="kind", groups="split")).fixed_test is None


def test_a_value_that_is_named_parts_the_rows(tmp_path: Path) -> None:
    table = frame(("north", "south = cold", "east"))
    table.rename(columns={"split": "where=from"}).to_csv(tmp_path / "table.csv", index=False)
    dataset = load(tmp_path / "table.csv", test="where=from=south = cold")
    assert dataset.fixed_test.sum() == 40  # type: ignore[union-attr]
    assert not dataset.schema.categories
    numbered = load(table.assign(year=np.resize([2024, 2025], 120)), target="kind", test="year=2025")
    assert numbered.fixed_test.sum() == 60  # type: ignore[union-attr]
    with pytest.raises(AyatoriError, match=r"no row of the table .* has 'west' in column 'where=from'"):
        load(tmp_path / "table.csv", test="where=from=west")
    with pytest.raises(AyatoriError, match="column 'were' must be in the table"):
        load(tmp_path / "table.csv", test="were=north")
    with pytest.raises(AyatoriError, match=r"column 'kin' must be in the table .* did you mean 'kind'"):
        load(tmp_path / "table.csv", target="kin", test="where=from=north")
    table["lists"] = [["a"]] * 120
    table.to_parquet(tmp_path / "table.parquet")
    with pytest.raises(AyatoriError, match="must hold words or numbers, however it is list"):
        load(tmp_path / "table.parquet", target="kind", test="lists=1")


def test_nothing_of_the_test_decides_how_rows_are_read() -> None:
    table = frame(("train", "test"))
    table["shade"] = np.where(
        table["split"] == "test", "unseen", np.resize(["light", "light", "dark", "dark"], 120)
    )
    table["size"] = np.where(table["split"] == "test", "1e3", np.resize(["1", "1", "2", "2"], 120))
    dataset = load(table, target="kind")
    assert dataset.schema.categories["shade"] == ("dark", "light")
    assert (dataset.inputs["categories"][dataset.fixed_test, 0] == -1).all()


def test_rows_of_a_test_without_labels_are_left_out(tmp_path: Path) -> None:
    table = frame()
    table.loc[table["split"] == "test", "kind"] = None
    table.to_csv(tmp_path / "table.csv", index=False)
    dataset = load(tmp_path / "table.csv")
    assert dataset.fixed_test is None
    assert len(dataset) == 90
    assert any("30 rows have no label, and are left out" in note for note in dataset.notes)


def test_a_table_that_names_pictures_may_tell_too(tmp_path: Path) -> None:
    table = frame()[["split", "kind"]]
    table.insert(0, "file", [f"pictures/{number}.png" for number in range(120)])
    (tmp_path / "pictures").mkdir()
    for number, name in enumerate(table["file"]):
        Image.fromarray(np.full((6, 6), number, np.uint8)).save(tmp_path / name)
    table.to_csv(tmp_path / "labels.csv", index=False)
    dataset = load(tmp_path / "labels.csv")
    here = (table["split"] == "test").to_numpy()
    assert dataset.fixed_test.sum() == 30  # type: ignore[union-attr]
    expected = [*np.flatnonzero(~here), *np.flatnonzero(here)]
    assert dataset.inputs["image"][:, 0, 0, 0].tolist() == expected


def test_a_run_and_a_look_keep_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    frame().to_csv("table.csv", index=False)
    few = ("--epochs", "1", "--no-look", "--baselines", "none")
    assert command(monkeypatch, "run", "table.csv", "--out", "a", *few) == 0
    assert command(monkeypatch, "run", "table.csv", "--test", "split=val", "--out", "b", *few) == 0
    said = capsys.readouterr().out
    assert said.count("30 of 120 rows are sealed") == 2
    assert "--drop 'split' lets chance draw one" in said
    assert command(monkeypatch, "resume", "b") == 0
    assert command(monkeypatch, "predict", "a", "table.csv", "--out", "says.csv") == 0
    assert len(pd.read_csv("says.csv")) == 120
    assert command(monkeypatch, "explore", "table.csv", "--out", "look") == 0
    assert "accuracy, 90 rows" in capsys.readouterr().out
    assert "the test is 30 rows" in (tmp_path / "look" / "explore.html").read_text()


def test_a_test_that_is_far_worse_than_held_out_rows_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Speakers differ more than words: rows of a speaker are known by others of the same."""
    monkeypatch.chdir(tmp_path)
    chance = np.random.default_rng(0)
    speakers, words = np.divmod(np.arange(24 * 20), 20)
    words = words % 4
    centres = chance.normal(size=(24, 4, 6))
    values = centres[speakers, words] + 0.1 * chance.normal(size=(480, 6))
    table = pd.DataFrame(values, columns=list("abcdef"))
    table["part"], table["word"] = np.where(speakers < 16, "train", "test"), [f"w{word}" for word in words]
    table.to_csv("words.csv", index=False)
    assert command(monkeypatch, "run", "words.csv", "--out", "a", "--preset", "quick", "--no-look") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Careful: on held-out rows of what it learned from, one network is right in" in said
    assert "Next: Hold together what belongs together (--groups)" in said
    by_chance = ("--drop", "part", "--out", "b", "--preset", "quick", "--no-look")
    assert command(monkeypatch, "run", "words.csv", *by_chance) == 0
    assert "far from the test" not in " ".join(capsys.readouterr().out.split())
