"""Bad input is refused with one sentence that says what must hold, what was found, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ayatori.data import load, load_like
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError, Dataset, SchemaError

GOOD = "a,b,y\n" + "\n".join(f"{row}.5,{'rg'[row % 2]},{row % 2}" for row in range(30))


def refused(data: Any, *words: str, recipe: DataRecipe | None = None, **options: Any) -> str:
    with pytest.raises(AyatoriError) as caught:
        load(data, recipe=recipe or DataRecipe(), **options)
    said = str(caught.value)
    assert "\n" not in said
    assert "must" in said
    assert "however" in said
    for word in words:
        assert word in said
    return said


def with_cell(row: int, column: int, text: str) -> str:
    lines = [line.split(",") for line in GOOD.split("\n")]
    lines[row + 1][column] = text
    return "\n".join(",".join(line) for line in lines)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty"]),
        (b"  \n \n", ["is empty"]),
        (b"a,b,y\n", ["must hold rows"]),
        (b"a,a,y\n1,2,0\n3,4,1\n", ["'a' names 2 columns"]),
        (b",,\n?,NA,\n", ["must name the columns", "it names none"]),
        (b"a,b,y\n1,2,0\n3,4\n", ["must have 3 values", "one has 2", "'3,4'"]),
        (b"a,b,y\n1,2,0\n3,4,1,9\n", ["must have 3 values", "one has 4"]),
        (b"a  b y\n" + b"1 2  0\n" * 60 + b"3 4\n", ["must have 3 values", "one has 2", "'3 4'"]),
        (b"1.5  2 0\n" * 60 + b"3 4 1 9\n", ["must have 3 values", "one has 4"]),
        ("a,b,y\nä,2,0\n".encode("latin-1"), ["UTF-8"]),
        (b"a,y\n" + b"1,0\n2,1\n" * 20_000 + "ö,1\n".encode("latin-1"), ["UTF-8"]),
        ("a,y\n1,0\n".encode("utf-16"), ["two values"]),  # read, as its mark says how
        ("a,y\n1,0\n".encode("utf-16")[:-1], ["utf-16", "0x0a"]),
        (b"PK\x03\x04\0\0\0\0", ["a ZIP archive; let its name end in .zip"]),
        (b"\x89PNG\r\n\0\0\0", ["another kind of binary file"]),
        (b'{"a": 1, "y": 0}\n{"a": 2, "y": 1', ["must be a table in JSON"]),
        (b' [{"a": 1, "y": 0}, 3', ["must be a table in JSON"]),
        (b"ARROW1 and no more", ["must be a whole Feather file"]),
        (b"\n<!DOCTYPE html><html></html>", ["it is a web page"]),
        (with_cell(20, 0, "inf").encode(), ["'a'", "row 20", "finite"]),
        (with_cell(20, 0, "-Infinity").encode(), ["'a'", "row 20", "finite"]),
        (with_cell(20, 0, "1e999").encode(), ["'a'", "row 20", "finite"]),
        (with_cell(20, 0, "abc").encode(), ["'a'", "29 of its 30", "row 20", "'abc'"]),
        (GOOD.replace(",1\n", ",0\n").rpartition("\n")[0].encode(), ["at least two classes", "'y'", "'0'"]),
        (("a,y\n" + "\n".join(f"{row},NA" for row in range(9))).encode(), ["missing in every row", "'y'"]),
        (b"y\n1\n2\n", ["column to learn from"]),
        (("a,y\n" + "\n".join(f"7,{row % 2}" for row in range(9))).encode(), ["to learn from", "the same"]),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    refused(path, *words)


def test_a_test_without_labels_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": range(30), "y": [0, 1, 0] * 10})
    frame[["a"]].to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(SchemaError, match=r"'y' must be in the rows.*; without labels rows are no test"):
        load(frame, target="y", test=tmp_path / "test.csv")


@pytest.mark.parametrize(
    "header",
    [
        "0,1,kind",  # a frame of an array, with a target
        "400.5,401.5,kind",  # wavelengths
        "size,age,setosa",  # the name of one class, as a column says whether it is
        "2019,2020,2021",
    ],
)
def test_a_header_that_has_numbers_or_the_name_of_a_class_is_one(tmp_path: Path, header: str) -> None:
    rows = [f"{row}.5,{row % 7},{['setosa', 'other'][row % 2]}" for row in range(30)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    data = load(path)
    assert len(data) == 30
    assert data.schema.target == (header.split(",")[-1],)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (DataRecipe(target="yy"), ["'yy'", "did you mean 'y'?"]),
        (DataRecipe(target=("a", "z")), ["'z'"]),
        (DataRecipe(groups="bb"), ["'bb'", "did you mean 'b'?"]),
        (DataRecipe(time="when"), ["'when'"]),
        (DataRecipe(ids="id"), ["'id'"]),
        (DataRecipe(drop=("c",)), ["'c'"]),
        (DataRecipe(time="b"), ["time column 'b'", "row 0"]),
        (DataRecipe(task="regression", target="b"), ["must hold numbers", "'r'"]),
        (DataRecipe(task="multilabel", target=("a", "y")), ["0 or 1"]),
        (DataRecipe(task="classification", target=("a", "y")), ["one target"]),
        (DataRecipe(drop=("a", "b")), ["column to learn from"]),
    ],
)
def test_settings_that_the_table_cannot_meet_are_refused(
    tmp_path: Path, recipe: DataRecipe, words: list[str]
) -> None:
    (tmp_path / "t.csv").write_text(GOOD)
    refused(tmp_path / "t.csv", *words, recipe=recipe)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.97])
def test_a_parquet_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    frame = pd.DataFrame({"a": np.random.default_rng(0).normal(size=5000), "y": [0, 1] * 2500})
    frame.to_parquet(tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[: int(len(whole) * share)])
    refused(tmp_path / "t.parquet", "whole Parquet file", "t.parquet")


def test_damage_inside_a_parquet_file_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.random.default_rng(0).normal(size=5000), "y": [0, 1] * 2500})
    frame.to_parquet(tmp_path / "t.parquet")
    whole = bytearray((tmp_path / "t.parquet").read_bytes())
    whole[4:3000] = b"\xff" * 2996
    (tmp_path / "t.parquet").write_bytes(whole)
    refused(tmp_path / "t.parquet", "whole Parquet file")


def test_bad_arrays_are_refused() -> None:
    X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    refused(X, "y is missing")
    refused(X, "20 and 19", y=y[:19])
    refused(np.where(X == 7, np.inf, X), "row 3, column 1", y=y)
    refused(X[:0], "none", y=y[:0])
    refused(X[:, :0], "columns", y=y)
    refused(np.zeros((20, 2, 2, 2, 2)), "shape", y=y)
    refused([[1, 2], [3]], "array", y=[0, 1])
    refused(np.full((20, 8, 8), -1.0), "from 0 to 255", "normalisation", y=y)
    refused(np.full((20, 8, 8), np.nan), "from 0 to 255", y=y)
    refused(X, "at least two classes", recipe=DataRecipe(task="classification"), y=np.ones(20))
    refused(X, "at least two values", y=np.full(20, 0.5))
    refused(X, "must be finite", "row 2", y=np.where(np.arange(20) == 2, np.inf, np.arange(20)))
    refused(X, "every row", y=np.full(20, np.nan))
    refused(X, "shape", y=np.zeros((20, 2, 2)))
    refused(X, "groups", recipe=DataRecipe(groups="g"), y=y)
    refused(pd.DataFrame(X, columns=["a", "a"]), "'a' names 2 columns", y=y)


def test_bad_npz_files_are_refused(tmp_path: Path) -> None:
    X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    path = tmp_path / "d.npz"
    for arrays, words in (
        ({"pixels": X, "y": y}, ["an array 'X'", "pixels, y"]),
        ({"X": X}, ["a target 'y'"]),
        ({"X": X, "y": y, "X_test": X}, ["or neither"]),
        ({"X": X, "y": y, "groups": y[:3]}, ["groups"]),
        ({"X": X, "y": np.array([{}] * 20, dtype=object)}, ["plain arrays"]),
    ):
        np.savez(path, **arrays)
        refused(path, *words)
    np.savez(path, X=X, y=y)
    whole = path.read_bytes()
    for kept in (0, 10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:kept])
        refused(path, "whole .npz")


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    refused(tmp_path / "none", "does not exist")
    refused(tmp_path, "it holds none")
    (tmp_path / "film.avi").write_bytes(b"RIFF\x1a\0\0\0AVI LIST")
    refused(tmp_path, "its files end in")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    refused(tmp_path, "1 picture without a class", "subfolders")
    (tmp_path / "one").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "one" / "a.png")
    refused(tmp_path, "two folders of pictures or more", "only 'one' has")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "a.png").write_bytes(b"nothing")
    refused(tmp_path, "two folders of pictures or more", "only 'one' has")
    (tmp_path / "one" / "a.png").write_bytes(b"nothing")
    refused(tmp_path, "readable")
    refused(tmp_path, "target='y'", recipe=DataRecipe(target="y"))
    refused(tmp_path, "between 4 and 4096", recipe=DataRecipe(size=100_000))


def test_paths_of_pictures_that_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,y\n" + "\n".join(f"p{row}.jpg,{row % 2}" for row in range(9)))
    refused(tmp_path / "t.csv", "'p0.jpg' is not there", "mend the paths")


def test_a_test_unlike_the_other_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(GOOD)
    test = tmp_path / "test.csv"
    for content, words in (
        ("a,b\n1,r\n", ["'y'"]),
        ("a,b,y\n1,r,2\n", ["class '2'", "'y'"]),
        ("aa,b,y\n1,r,1\n", ["'a'", "did you mean 'aa'?"]),
        ("a,b,y\nx,r,1\n", ["'a'", "must hold numbers", "'x'"]),
        ("a,b,y\n", ["none"]),
        ("a,b,y\n1,r,NA\n", ["missing"]),
    ):
        test.write_text(content)
        refused(tmp_path / "train.csv", *words, test=test)
    refused(tmp_path / "train.csv", "does not exist", test=tmp_path / "nothing.csv")
    refused(tmp_path / "train.csv", "folder", test=tmp_path)


@pytest.fixture(scope="module")
def trained() -> Dataset:
    rows = 40
    return load(
        pd.DataFrame(
            {
                "size": np.arange(rows) / 4,
                "colour": np.resize(["red", "blue"], rows),
                "day": pd.date_range("2024-01-01", periods=rows),
                "y": np.resize(["a", "b"], rows),
            }
        )
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": None}, ["'size'", "did you mean 'sizes'?"]),
        ({"size": ["1", "big"]}, ["'size'", "row 1", "'big'"]),
        ({"size": [1.0, np.inf]}, ["'size'", "row 1", "finite"]),
        ({"size": pd.to_datetime(["2024-01-01"] * 2)}, ["'size'", "must hold numbers"]),
        ({"day": ["soon", "later"]}, ["'day'", "must hold dates", "row 0"]),
        ({"day": [1, 2]}, ["'day'", "must hold dates"]),
    ],
)
def test_new_rows_that_do_not_fit_are_refused(
    trained: Dataset, change: dict[str, Any], words: list[str]
) -> None:
    good = {"size": [1.0, 2.0], "colour": ["red", "red"], "day": ["2024-01-01"] * 2, "sizes": [1, 2]}
    assert len(load_like(pd.DataFrame(good), trained.schema)) == 2
    bad = {name: values for name, values in (good | change).items() if values is not None}
    with pytest.raises((SchemaError, AyatoriError)) as caught:
        load_like(pd.DataFrame(bad), trained.schema)
    for word in words:
        assert word in str(caught.value)


def test_rows_without_the_target_are_refused_where_it_is_needed(trained: Dataset) -> None:
    new = pd.DataFrame({"size": [1.0], "colour": ["red"], "day": ["2024-01-01"]})
    assert load_like(new, trained.schema).target is None
    with pytest.raises(SchemaError, match="'y' must be in the rows"):
        load_like(new, trained.schema, need_target=True)
    with pytest.raises(SchemaError, match="'name' must be in the rows"):
        load_like(new, trained.schema, ids="name")
    with pytest.raises(SchemaError, match="bare array"):
        load_like(np.zeros((2, 3)), trained.schema)
