"""A column of lists of labels, such as tags, is a target of several labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from helpers import command
from PIL import Image

from ayatori.data import load, load_like
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError

NAMES = ("blue", "deep red", "green")


def frame(rows: int = 60, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """A table whose ``tags`` are lists, and (rows, 3) bool: who has which."""
    chance = np.random.default_rng(seed)
    values = chance.normal(size=(rows, 3))
    there = values > 0.2
    tags = [[name for name, has in zip(NAMES, row, strict=True) if has] for row in there]
    return pd.DataFrame(values, columns=list("abc")).assign(tags=tags), there


@pytest.mark.parametrize("ending", ["parquet", "feather", "json", "frame", "arrow", "numbers"])
def test_lists_are_several_labels_whatever_holds_them(tmp_path: Path, ending: str) -> None:
    table, there = frame()
    path = tmp_path / f"table.{ending}"
    data: object = path
    if ending in ("frame", "arrow"):
        data = table if ending == "frame" else pa.Table.from_pandas(table)
    elif ending == "json":
        table.to_json(path, orient="records")
    elif ending == "numbers":
        table["tags"] = [[NAMES.index(tag) + 7 for tag in tags] for tags in table["tags"]]
        data = path.with_suffix(".parquet")
        table.to_parquet(data)  # type: ignore[arg-type]
    else:
        getattr(table, f"to_{ending}")(path)
    dataset = load(data, target="tags")
    assert dataset.task == "multilabel"
    assert dataset.classes == (("7", "8", "9") if ending == "numbers" else NAMES)
    assert (dataset.labels == there).all()
    assert dataset.schema.numbers == ("a", "b", "c")
    assert any("'tags' holds lists of labels" in note for note in dataset.notes)


@pytest.mark.parametrize("sign", ["|", ";", ", ", "list"])
def test_texts_are_parted_where_the_task_says_so(tmp_path: Path, sign: str) -> None:
    table, there = frame()
    table["tags"] = table["tags"].map(str if sign == "list" else sign.join)
    table.to_csv(tmp_path / "table.csv", index=False)
    dataset = load(tmp_path / "table.csv", recipe=DataRecipe(task="multilabel"))
    kept = there if sign == "list" else there[there.any(axis=1)]  # of a CSV, an empty cell is a missing one
    assert dataset.classes == NAMES
    assert (dataset.labels == kept).all()
    assert load(tmp_path / "table.csv").task == "classification"


def test_a_missing_list_has_no_target_and_an_empty_one_no_label() -> None:
    table, there = frame()
    table.at[3, "tags"] = None
    table.at[4, "tags"] = []
    dataset = load(table, target="tags")
    assert len(dataset) == 59
    assert not dataset.labels[3].any()
    assert (dataset.labels[4:] == there[5:]).all()


def test_a_label_that_is_called_like_a_column_is_told_from_it() -> None:
    table, there = frame()
    table["tags"] = [["a" if tag == "blue" else tag for tag in tags] for tags in table["tags"]]
    dataset = load(table, target="tags")
    assert dataset.classes == ("tags: a", "deep red", "green")
    assert (dataset.labels == there).all()
    again = load_like(table, dataset.schema, need_target=True)
    assert (again.labels == there).all()


def test_other_rows_are_read_by_the_labels_that_are_known(tmp_path: Path) -> None:
    table, _ = frame()
    table.to_parquet(tmp_path / "table.parquet")
    more, _ = frame(20, seed=1)
    more.at[0, "tags"] = ["green"]
    more.to_parquet(tmp_path / "more.parquet")
    dataset = load(tmp_path / "table.parquet", test=tmp_path / "more.parquet")
    assert dataset.fixed_test.sum() == 20  # type: ignore[union-attr]
    assert dataset.labels[60].tolist() == [0, 0, 1]
    more.at[0, "tags"] = ["green", "unseen"]
    more.to_parquet(tmp_path / "more.parquet")
    with pytest.raises(AyatoriError, match="however 'unseen' is not"):
        load(tmp_path / "table.parquet", test=tmp_path / "more.parquet")
    assert load_like(more, dataset.schema).labels[0].tolist() == [0, 0, 1]
    assert load_like(more.drop(columns="tags"), dataset.schema).target is None


def test_rows_of_its_own_test_are_read_too() -> None:
    table, there = frame()
    table["part"] = np.resize(["train", "train", "test"], 60)
    dataset = load(table, target="tags")
    order = np.argsort(table["part"] == "test", kind="stable")
    assert (dataset.labels == there[order]).all()


def test_pictures_may_have_tags(tmp_path: Path) -> None:
    table, there = frame(30)
    table = table[["tags"]].assign(tags=table["tags"].map(" ".join).str.replace("deep red", "red"))
    table.insert(0, "file", [f"{number}.png" for number in range(30)])
    for name in table["file"]:
        Image.new("L", (6, 6)).save(tmp_path / name)
    table[["tags", "file"]].to_csv(tmp_path / "tags.csv", index=False)
    recipe = DataRecipe(task="multilabel")
    dataset = load(tmp_path / "tags.csv", recipe=recipe, test=tmp_path / "tags.csv")
    assert dataset.classes == ("blue", "green", "red")
    kept = there[there.any(axis=1)][:, [0, 2, 1]]
    assert (dataset.labels == np.concatenate([kept, kept])).all()


def test_too_many_labels_and_none_are_refused() -> None:
    table, _ = frame()
    table["tags"] = [[f"{row}-{number}" for number in range(20)] for row in range(60)]
    with pytest.raises(AyatoriError, match="up to 1,000 labels, however they hold 1,200"):
        load(table, target="tags")
    with pytest.raises(AyatoriError, match="holds values of type list"):
        load(frame()[0], recipe=DataRecipe(target="tags", task="classification"))


def test_a_run_learns_and_answers_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table, _ = frame(120)
    table.to_parquet("table.parquet")
    few = ("--epochs", "2", "--no-look", "--baselines", "none", "--out", "run")
    assert command(monkeypatch, "run", "table.parquet", *few) == 0
    assert command(monkeypatch, "predict", "run", "table.parquet", "--out", "says.csv") == 0
    assert [name for name in pd.read_csv("says.csv").columns if name.startswith("p_")] == [
        f"p_{name}" for name in NAMES
    ]
