"""Tables and arrays become rows of numbers and categories, by types that the development rows decide."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.pandas import column, data_frames, range_indexes
from sklearn.datasets import load_digits, load_iris

from ayatori.data import load, load_like
from ayatori.data.files import open_table
from ayatori.model_files import schema_from
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError, Dataset, SchemaError


def frame_of(rows: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": rng.normal(size=rows).round(6),
            "count": rng.integers(0, 4, rows),
            "colour": rng.choice(["red", "blue", "green"], rows),
            "sold": rng.random(rows) < 0.5,
            "day": pd.Timestamp("2024-01-30") + pd.to_timedelta(np.arange(rows), "D"),
            "kind": np.resize(["dog", "cat", "cow"], rows),
        }
    )


def words(dataset: Dataset, name: str) -> list[str | None]:
    known = dataset.schema.categories[name]
    codes = dataset.inputs["categories"][:, list(dataset.schema.categories).index(name)]
    return [None if code < 0 else known[code] for code in codes]


def number(dataset: Dataset, name: str) -> np.ndarray:
    return dataset.inputs["numbers"][:, dataset.schema.numbers.index(name)]


def test_a_csv_becomes_numbers_dates_and_categories(tmp_path: Path) -> None:
    frame = frame_of()
    frame.to_csv(tmp_path / "t.csv", index=False)
    dataset = load(tmp_path / "t.csv")
    assert dataset.schema.kind == "table"
    assert dataset.task == "classification"
    assert dataset.classes == ("cat", "cow", "dog")
    assert [dataset.classes[code] for code in dataset.labels] == list(frame["kind"])
    assert dataset.inputs["numbers"].dtype == np.float64
    assert dataset.inputs["categories"].dtype == np.int32
    assert words(dataset, "colour") == list(frame["colour"])
    assert dataset.schema.categories["colour"] == ("blue", "green", "red")
    np.testing.assert_array_equal(number(dataset, "size"), frame["size"])
    np.testing.assert_array_equal(number(dataset, "count"), frame["count"])
    np.testing.assert_array_equal(number(dataset, "sold"), frame["sold"])
    assert dataset.ids.tolist() == [str(row) for row in range(60)]
    assert dataset.source == str(tmp_path / "t.csv")
    assert any("last column, 'kind'" in note for note in dataset.notes)


def test_dates_become_the_parts_that_vary() -> None:
    frame = frame_of()
    dataset = load(frame)
    assert dataset.schema.dates == ("day",)
    assert [name for name in dataset.schema.numbers if name.startswith("day")] == [
        "day: days",
        "day: month",
        "day: weekday",
    ]
    days = (frame["day"] - pd.Timestamp("2000-01-01")) / pd.Timedelta("1D")
    np.testing.assert_array_equal(number(dataset, "day: days"), days)
    np.testing.assert_array_equal(number(dataset, "day: month"), frame["day"].dt.month)
    np.testing.assert_array_equal(number(dataset, "day: weekday"), frame["day"].dt.day_of_week)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.datetimes(pd.Timestamp(1900, 1, 1), pd.Timestamp(2100, 1, 1)), min_size=4, max_size=9))
def test_parts_of_dates_are_those_of_pandas(stamps: list[pd.Timestamp]) -> None:
    when = pd.Series(stamps).dt.floor("s")
    dataset = load(pd.DataFrame({"when": when, "x": np.arange(len(when))}), y=np.arange(len(when)) * 0.5)
    for part, wanted in {
        "month": when.dt.month,
        "weekday": when.dt.day_of_week,
        "hour": when.dt.hour + when.dt.minute / 60 + when.dt.second / 3600,
    }.items():
        if f"when: {part}" in dataset.schema.numbers:
            np.testing.assert_allclose(number(dataset, f"when: {part}"), wanted, atol=1e-5)
        else:
            assert wanted.nunique() == 1


def test_a_few_words_among_numbers_are_a_mistake_but_names_of_whom_a_row_is_of() -> None:
    words = [str(200 + row // 6) for row in range(48)] + ["207a", "6.2\x1a"]
    kind = ["a", "b"] * 25
    named = load(pd.DataFrame({"subject": words, "size": range(50), "kind": kind}))
    assert "207a" in named.schema.categories["subject"]
    with pytest.raises(AyatoriError, match=r"like 48 of its 50 values, however row 48 .* says '207a'"):
        load(pd.DataFrame({"station": words, "kind": kind}))
    with pytest.raises(AyatoriError, match=r"says '6.2\\x1a'"):
        load(pd.DataFrame({"station": ["1"] * 49 + words[-1:], "kind": kind}))


def test_iso_text_is_a_date_and_other_text_is_not() -> None:
    rows = 40
    frame = pd.DataFrame(
        {
            "iso": [f"2024-03-{1 + row % 28:02d}T10:00:00+02:00" for row in range(rows)],
            "word": [f"no-{row % 3}" for row in range(rows)],
            "y": np.resize([0, 1], rows),
        }
    )
    schema = load(frame).schema
    assert schema.dates == ("iso",)
    assert tuple(schema.categories) == ("word",)


def test_csv_parquet_frame_and_arrow_give_the_same_rows(tmp_path: Path) -> None:
    import pyarrow as pa

    frame = frame_of()
    frame.loc[3, "colour"] = None
    frame.loc[5, "size"] = np.nan
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    first, *others = [
        load(data) for data in (frame, tmp_path / "t.csv", tmp_path / "t.parquet", pa.table(frame))
    ]
    for other in others:
        assert other.fingerprint == first.fingerprint
        assert other.schema == first.schema
        np.testing.assert_array_equal(other.inputs["numbers"], first.inputs["numbers"])


_WORDS = st.sampled_from(["a", "b", "Ä", "two words", "x,y", 'q"q', "line\nbreak", "-", "é;|"])


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frame=data_frames(
        [
            column("n", elements=st.floats(-1e6, 1e6) | st.just(float("nan"))),
            column("w", elements=_WORDS, dtype=object),
            column("y", elements=st.sampled_from(["no", "yes"]), dtype=object),
        ],
        index=range_indexes(min_size=2, max_size=12),
    ),
    separator=st.sampled_from(",;\t|"),
)
def test_what_is_written_is_what_is_read(tmp_path: Path, frame: pd.DataFrame, separator: str) -> None:
    frame = pd.concat([frame, pd.DataFrame({"n": [1.5, 2.5], "w": ["a", "b"], "y": ["no", "yes"]})])
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False, sep=separator)
    dataset = load(path)
    np.testing.assert_array_equal(number(dataset, "n"), frame["n"])
    assert words(dataset, "w") == list(frame["w"])
    assert [dataset.classes[code] for code in dataset.labels] == list(frame["y"])


@pytest.mark.parametrize("marker", ["", "NA", "NaN", "nan", "?", "null", "None", " ? "])
def test_missing_markers_are_missing(tmp_path: Path, marker: str) -> None:
    rows = [f"{row}.5,{'ab'[row % 2]},{row % 2}" for row in range(30)]
    rows[4] = f"{marker},{marker},1"
    (tmp_path / "t.csv").write_text("n,w,y\n" + "\n".join(rows))
    dataset = load(tmp_path / "t.csv")
    assert np.flatnonzero(np.isnan(number(dataset, "n"))).tolist() == [4]
    assert [row for row, word in enumerate(words(dataset, "w")) if word is None] == [4]


def test_decimal_commas_bom_and_blank_lines_are_understood(tmp_path: Path) -> None:
    rows = "\n".join(f"{row},25;{'ja' if row % 2 else 'nein'}" for row in range(20))
    (tmp_path / "t.csv").write_text("\n\nWert;Größe\n" + rows, encoding="utf-8-sig")
    dataset = load(tmp_path / "t.csv", recipe=DataRecipe(target="Größe"))
    np.testing.assert_array_equal(number(dataset, "Wert"), np.arange(20) + 0.25)


def test_decimal_commas_are_told_from_the_points_of_dates_and_amounts(tmp_path: Path) -> None:
    rows = "\n".join(
        f"{row},5;{1 + row % 28}.03.2024;1.{row:03d},50 €;{row},2 %;{row % 3}" for row in range(60)
    )
    (tmp_path / "t.csv").write_text("Größe;Tag;Preis;Anteil;y\n" + rows, encoding="utf-8")
    dataset = load(tmp_path / "t.csv")
    assert dataset.schema.dates == ("Tag",)
    np.testing.assert_array_equal(number(dataset, "Größe"), np.arange(60) + 0.5)
    np.testing.assert_array_equal(number(dataset, "Preis"), np.arange(60) + 1000.5)
    np.testing.assert_array_equal(number(dataset, "Anteil"), np.arange(60) + 0.2)


def test_a_target_of_texts_that_all_differ_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.arange(60.0), "y": [f"{row},5" for row in range(60)]})
    with pytest.raises(AyatoriError, match="60 of its 60 texts differ, such as '0,5'"):
        load(frame)


def test_numbers_late_in_a_large_file_change_the_type_of_their_column(tmp_path: Path) -> None:
    rows = [f"{row % 7},{row % 2}" for row in range(150_000)]
    rows[-1] = "0.5,1"
    (tmp_path / "t.csv").write_text("n,y\n" + "\n".join(rows))
    assert number(load(tmp_path / "t.csv"), "n")[-2:].tolist() == [149_998 % 7, 0.5]


def test_columns_that_teach_nothing_are_left_out_and_named() -> None:
    frame = frame_of()
    frame["gone"] = np.nan
    frame["same"] = 7
    frame["text"] = [f"remark {row}" for row in range(60)]
    frame["PassengerId"] = np.arange(60) + 900
    frame["list"] = [["a", "b"]] * 60
    dataset = load(frame, recipe=DataRecipe(target="kind"))
    left = {"gone", "same", "text", "PassengerId", "list"}
    assert set(dataset.schema.ignored) == left
    assert left.isdisjoint(dataset.schema.numbers)
    for name in left:
        assert any(f"'{name}' is left out" in note for note in dataset.notes)


def test_groups_time_ids_and_dropped_columns_are_no_features() -> None:
    frame = frame_of()
    frame["who"] = np.repeat(["p", "q", None], 20)
    frame["name"] = [f"r{row}" for row in range(60)]
    recipe = DataRecipe(groups="who", time="day", ids="name", drop=("sold",))
    dataset = load(frame, recipe=recipe)
    assert dataset.ids.tolist() == list(frame["name"])
    assert dataset.groups is not None
    assert dataset.groups[:40].tolist() == [0] * 20 + [1] * 20
    assert len(set(dataset.groups[40:])) == 20  # a row without a group is a group of its own
    assert dataset.order is not None
    assert (np.diff(dataset.order) == 1).all()
    assert dataset.schema.numbers == ("size", "count")
    assert dataset.schema.id_column == "name"


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["b", "a"] * 30, "classification", ("a", "b")),
        ([True, False] * 30, "classification", ("False", "True")),
        ([0, 1] * 30, "classification", ("0", "1")),
        ([1.0, 2.0, 10.0] * 20, "classification", ("1", "2", "10")),
        (["10", "9", "2"] * 20, "classification", ("2", "9", "10")),
        (list(range(60)), "regression", ()),
        ([0.5, 1.0, 2.0] * 20, "regression", ()),
        (pd.Categorical([3, 1] * 30), "classification", ("1", "3")),
    ],
)
def test_the_task_follows_from_the_target(values: object, task: str, classes: tuple[str, ...]) -> None:
    dataset = load(pd.DataFrame({"x": np.arange(60) / 7, "y": values}))
    assert (dataset.task, dataset.classes) == (task, classes)
    assert any(note.startswith(task) for note in dataset.notes)


def test_a_guess_that_is_not_plain_says_how_to_have_the_other() -> None:
    x = np.arange(60) * 0.5
    few, seldom, many = (load(pd.DataFrame({"x": x}), y=np.arange(60) % n).notes for n in (5, 10, 60))
    assert any("few distinct values; task 'regression'" in note for note in few)
    assert any("(10 whole numbers; task 'classification' takes them as classes)" in note for note in seldom)
    assert not any("task '" in note for note in many)


def test_whole_numbers_that_trail_off_are_counts_and_not_classes() -> None:
    x = np.arange(400) * 0.5
    counts = np.random.default_rng(1).poisson(5.0, 400)
    codes = np.arange(400) % (counts.max() + 1)  # as many distinct ones, each as often
    assert load(pd.DataFrame({"x": x}), y=counts).task == "regression"
    assert load(pd.DataFrame({"x": x}), y=codes).task == "classification"


def test_the_recipe_overrides_the_task() -> None:
    frame = pd.DataFrame({"x": np.arange(60) / 7, "y": [0, 1, 2] * 20})
    assert load(frame, recipe=DataRecipe(task="regression")).labels.shape == (60, 1)
    assert load(frame, recipe=DataRecipe(task="classification")).classes == ("0", "1", "2")


def test_several_columns_are_labels_or_values() -> None:
    frame = pd.DataFrame({"x": np.arange(30) / 7, "a": [0, 1] * 15, "b": [True, False, False] * 10})
    labels = load(frame, recipe=DataRecipe(target=("a", "b")))
    assert (labels.task, labels.classes) == ("multilabel", ("a", "b"))
    assert labels.labels.dtype == np.float32
    np.testing.assert_array_equal(labels.labels, frame[["a", "b"]].astype(float))
    frame["b"] = np.linspace(0, 1, 30)
    values = load(frame, recipe=DataRecipe(target=("a", "b")))
    assert (values.task, values.classes, values.schema.target) == ("regression", (), ("a", "b"))
    np.testing.assert_array_equal(values.labels, frame[["a", "b"]])


def test_rows_without_a_target_are_left_out_and_keep_their_numbers() -> None:
    frame = frame_of()
    frame.loc[[0, 7], "kind"] = None
    dataset = load(frame)
    assert dataset.ids.tolist() == [str(row) for row in range(60) if row not in (0, 7)]
    np.testing.assert_array_equal(number(dataset, "size"), frame["size"].drop([0, 7]))
    assert any("2 of 60 rows are left out" in note for note in dataset.notes)


def test_test_rows_come_last_and_decide_nothing(tmp_path: Path) -> None:
    frame, test = frame_of(), frame_of(20)
    test["colour"] = "violet"
    test["count"] = np.arange(20) + 0.5
    frame.to_csv(tmp_path / "train.csv", index=False)
    test.to_csv(tmp_path / "test.csv", index=False)
    alone = load(tmp_path / "train.csv")
    both = load(tmp_path / "train.csv", test=tmp_path / "test.csv")
    assert both.schema == alone.schema
    assert both.fixed_test is not None
    assert both.fixed_test.tolist() == [False] * 60 + [True] * 20
    np.testing.assert_array_equal(both.inputs["numbers"][:60], alone.inputs["numbers"])
    assert words(both, "colour")[60:] == [None] * 20
    np.testing.assert_array_equal(number(both, "count")[60:], test["count"])


def test_groups_are_numbered_over_development_and_test_rows(tmp_path: Path) -> None:
    frame, test = frame_of(), frame_of(20)
    frame["who"], test["who"] = np.resize(["p", "q"], 60), np.resize(["q", "r"], 20)
    test.to_csv(tmp_path / "test.csv", index=False)
    dataset = load(frame, recipe=DataRecipe(target="kind", groups="who"), test=tmp_path / "test.csv")
    assert dataset.groups is not None
    assert dataset.groups.tolist() == [0, 1] * 30 + [1, 2] * 10


def test_more_rows_are_read_as_the_first_ones_were(tmp_path: Path) -> None:
    frame = frame_of()
    dataset = load(frame, recipe=DataRecipe(target="kind"))
    more = frame.assign(extra=1)[["extra", "day", "colour", "sold", "size", "count", "kind"]]
    again = load_like(more, dataset.schema)
    for name, values in dataset.inputs.items():
        np.testing.assert_array_equal(again.inputs[name], values)
    np.testing.assert_array_equal(again.labels, dataset.labels)
    more.drop(columns="kind").to_csv(tmp_path / "new.csv", index=False)
    unlabelled = load_like(tmp_path / "new.csv", dataset.schema)
    assert unlabelled.target is None
    np.testing.assert_array_equal(unlabelled.inputs["numbers"], dataset.inputs["numbers"])


def test_new_categories_are_unknown_and_numbers_may_be_text() -> None:
    dataset = load(frame_of())
    new = frame_of(3).assign(colour=["red", "violet", None], count=["1", "2.5", ""], sold=["1", "0", "1"])
    rows = load_like(new, dataset.schema)
    assert words(rows, "colour") == ["red", None, None]
    np.testing.assert_array_equal(number(rows, "count"), [1, 2.5, np.nan])


def test_an_unknown_class_leaves_new_rows_without_a_target() -> None:
    dataset = load(frame_of())
    new = frame_of(3).assign(kind="horse")
    rows = load_like(new, dataset.schema)
    assert rows.target is None
    assert any("horse" in note for note in rows.notes)
    with pytest.raises(SchemaError, match="'horse'"):
        load_like(new, dataset.schema, need_target=True)


def test_classes_written_in_another_way_are_the_same_classes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.arange(40.0), "y": [1.0, 2.0] * 20, "z": [True, False] * 20})
    (tmp_path / "new.csv").write_text("x,y,z\n1,2,TRUE\n2,1.0,false\n")
    numeric = load(frame, recipe=DataRecipe(target="y"))
    assert load_like(tmp_path / "new.csv", numeric.schema).labels.tolist() == [1, 0]
    boolean = load(frame, recipe=DataRecipe(target="z"))
    assert load_like(tmp_path / "new.csv", boolean.schema).labels.tolist() == [1, 0]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 59), st.sampled_from(["size", "colour", "kind"]))
def test_a_fingerprint_tells_every_change(row: int, name: str) -> None:
    frame = frame_of()
    before = load(frame).fingerprint
    assert load(frame.copy()).fingerprint == before
    old = frame.loc[row, name]
    frame.loc[row, name] = 9.0 if name == "size" else next(w for w in sorted(set(frame[name])) if w != old)
    assert load(frame).fingerprint != before


def test_arrays_become_numbers_as_they_are() -> None:
    X, y = load_iris(return_X_y=True)
    dataset = load(X, y=y)
    assert (dataset.schema.kind, dataset.task, dataset.classes) == (
        "arrays",
        "classification",
        ("0", "1", "2"),
    )
    np.testing.assert_array_equal(dataset.inputs["numbers"], X)
    np.testing.assert_array_equal(load_like(X[:3], dataset.schema).inputs["numbers"], X[:3])
    assert load_like(X, dataset.schema, y=y, need_target=True).labels.tolist() == y.tolist()


def test_arrays_of_mixed_kinds_become_a_table() -> None:
    X = np.array([[1.5, "a"], [2.5, "b"], [np.nan, "a"], [0.5, "b"]], dtype=object)
    dataset = load(X, y=["no", "yes"] * 2)
    assert dataset.schema.numbers == ("x0",)
    assert dataset.schema.categories == {"x1": ("a", "b")}
    assert load_like(X[:2], dataset.schema).inputs["categories"].tolist() == [[0], [1]]


@pytest.mark.parametrize("place", [1, 3])
def test_arrays_of_pictures_are_told_from_their_shape(place: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 3, 6, 8), dtype=np.uint8)
    given = np.moveaxis(pixels, 1, place)
    for values in (given, given / 255, given.astype(np.int64), given.astype(np.float32)):
        dataset = load(values, y=[0, 1] * 6)
        np.testing.assert_array_equal(dataset.inputs["image"], pixels)
        assert dataset.schema.image == (3, 6, 8)
    assert load(pixels[:, 0], y=[0, 1] * 6).inputs["image"].shape == (12, 1, 6, 8)


BARE = {
    "numbers": "6,148,33.6,50\n1,85,26.6,31\n8,183,23.3,32\n",
    "whole numbers": "30,64,1\n30,62,3\n31,59,2\n",
    "a class at the end": "5.1,3.5,setosa\n4.9,3.0,setosa\n7.0,3.2,versicolor\n",
    "spaces behind commas": "39, Private, Male\n50, Public, Male\n31, Private, Female\n",
    "letters alone, each said again below": "p,x,s\ne,x,s\np,b,s\n",
    "files": "pets/1.png,cat\npets/2.JPG,dog\npets/3.png,cow\n",
    "gaps": "2,?,38.5,66\n1,1,39.2,?\n2,1,38.3,40\n",
    "spaces": " 0.00632  18.00   2.310  0\n 0.02731   0.00   7.070  1\n 0.5 12.5 8.1 0\n",
    "tabs and spaces": "AAT_ECOLI   0.49\t0.29  cp\nACEA_ECOLI  0.07\t0.40  cp\nACEK_ECOLI  0.5 0.4 im\n",
}


@pytest.mark.parametrize(("kinds", "asked"), [(3, True), (100, False)])
def test_classes_in_the_first_column_of_a_table_without_names_are_pointed_to(
    tmp_path: Path, kinds: int, asked: bool
) -> None:
    chance = np.random.default_rng(0)
    rows = np.column_stack([chance.integers(kinds, size=200), chance.normal(size=(200, 3))])
    np.savetxt(tmp_path / "wine.data", rows, delimiter=",", fmt=["%d", "%.4f", "%.4f", "%.4f"])
    hint = "the first column, '1', has 3 values: if it is the target, --target 1"
    assert (hint in load(tmp_path / "wine.data").notes) == asked
    assert hint not in load(tmp_path / "wine.data", target="1").notes


@pytest.mark.parametrize("text", BARE.values(), ids=list(BARE))
def test_a_table_without_a_line_of_names_keeps_its_first_row(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bare.data"
    path.write_text(text, encoding="utf-8")
    opened = open_table(path)
    assert opened.names == tuple("1234"[: opened.bare])
    assert opened.read(opened.names, ()).num_rows == 3
    assert opened.notes == (f"no line names the columns: they are called 1 to {opened.bare}",)


@pytest.mark.parametrize(
    "header",
    [
        "a b c",
        "a,b,c",
        "a.b,c.png,d",
        "0,1,2",
        "3,2,1",
        "2019,2020,2021",
        ",0,1",
        "400,402,404,410,500,503,620,y",
        "1,2,kind",
    ],
)
def test_a_line_of_names_is_known_though_it_may_hold_numbers(tmp_path: Path, header: str) -> None:
    mark = "," if "," in header else " "
    rows = [
        [str(13 * (row + 7 * place) % 11) for place, _ in enumerate(header.split(mark))] for row in range(9)
    ]
    path = tmp_path / "t.csv"
    path.write_text("\n".join([header, *map(mark.join, rows)]), encoding="utf-8")
    opened = open_table(path)
    assert opened.bare == 0
    assert opened.names[-1] == header.split(mark)[-1]
    assert opened.read(opened.names, ()).num_rows == 9


def test_rows_whose_columns_are_known_by_place_alone_must_have_them_all(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    rows = np.column_stack([chance.normal(size=(40, 4)), np.arange(40) % 2]).round(3)

    def written(name: str, values: np.ndarray, header: str = "") -> Path:
        np.savetxt(tmp_path / name, values, "%g", ",", header=header, comments="")
        return tmp_path / name

    last, first = written("last.csv", rows), written("first.csv", rows[:, ::-1])
    schema = load(last).schema
    assert schema.bare == 5
    for values in (rows, rows[:, :4]):  # with labels at the end, and without
        inputs = load_like(written("new.csv", values), schema).inputs
        np.testing.assert_array_equal(inputs["numbers"], rows[:, :4])
    for values, named, wrong in (
        (rows[:, :3], schema, "must have 5 columns, as no line names them, however they have 3"),
        (np.hstack([rows, rows]), schema, "however they have 10"),
        (rows[:, 3::-1], load(first, recipe=DataRecipe(target="1")).schema, "however they have 4"),
        (rows[:, :4], load(written("named.csv", rows, "a,b,c,d,y")).schema, "must name the columns"),
    ):
        with pytest.raises(SchemaError, match=wrong):
            load_like(written("new.csv", values), named)


@pytest.mark.parametrize("names", [("x", "y"), ("data", "target"), ("images", "labels"), ("X", "labels")])
def test_an_npz_may_call_its_arrays_as_others_do(tmp_path: Path, names: tuple[str, str]) -> None:
    x, y = np.arange(40.0).reshape(20, 2), np.repeat(["no", "yes"], 10)
    np.savez(tmp_path / "d.npz", **dict(zip(names, (x, y), strict=True)))
    dataset = load(tmp_path / "d.npz")
    np.testing.assert_array_equal(dataset.inputs["numbers"], x)
    assert [dataset.classes[code] for code in dataset.labels] == list(y)


def test_an_npz_brings_its_own_test_groups_and_ids(tmp_path: Path) -> None:
    digits = load_digits()
    X, y = digits.images / 16, digits.target
    names = np.array([f"d{row}" for row in range(100)])
    np.savez(
        tmp_path / "d.npz",
        X=X[:100],
        y=y[:100],
        ids=names,
        groups=np.arange(100) // 2,
        X_test=X[100:120],
        y_test=y[100:120],
    )
    dataset = load(tmp_path / "d.npz")
    assert dataset.fixed_test is not None
    assert dataset.fixed_test.sum() == 20
    assert dataset.ids[:2].tolist() == ["d0", "d1"]
    np.testing.assert_array_equal(dataset.labels, y[:120])
    np.testing.assert_array_equal(dataset.inputs["image"][:, 0], np.rint(X[:120] * 255))


def test_a_torch_dataset_is_read_item_by_item() -> None:
    import torch
    from torch.utils.data import TensorDataset

    class Pairs(TensorDataset):
        def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
            x, y = super().__getitem__(row)
            return x, int(y)

    pixels = torch.rand(60, 3, 4, 4)
    dataset = load(Pairs(pixels, torch.arange(60) % 30))
    assert (dataset.task, len(dataset.classes)) == ("classification", 30)
    np.testing.assert_array_equal(dataset.inputs["image"], np.rint(pixels.numpy() * 255))
    flat = load(TensorDataset(torch.rand(60, 5), torch.rand(60)))
    assert (flat.task, flat.inputs["numbers"].shape) == ("regression", (60, 5))


def test_global_random_state_and_the_given_data_are_left_as_found() -> None:
    frame = frame_of()
    copy, state = frame.copy(), np.random.get_state()[1].copy()  # noqa: NPY002
    load(frame)
    pd.testing.assert_frame_equal(frame, copy)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_y_and_a_named_target_exclude_each_other() -> None:
    with pytest.raises(AyatoriError, match="given once"):
        load(frame_of(), recipe=DataRecipe(target="kind"), y=np.arange(60))


def test_a_target_is_named_in_one_word_and_arrays_come_as_a_pair() -> None:
    frame = pd.DataFrame({"x": np.arange(40) / 7, "kind": ["a", "b"] * 20, "z": np.arange(40) / 3})
    named = load(frame, target="kind")
    assert named.fingerprint == load(frame, recipe=DataRecipe(target="kind")).fingerprint
    assert named.classes == ("a", "b")
    pair = load(frame[["x", "z"]].to_numpy(), frame["kind"])
    np.testing.assert_array_equal(pair.labels, named.labels)


WAYS = {
    "dollars": "${:,.2f}",
    "euros": "{:.2f} €",
    "shares": "{:.2f}%",
    "thousands": "{:,.2f}",
    "plain": "{:.2f}",
}


@pytest.mark.parametrize("way", WAYS)
@given(cents=st.lists(st.integers(-(10**9), 10**9), min_size=3, max_size=30, unique=True))
@settings(max_examples=30, deadline=None)
def test_amounts_as_people_write_them_are_numbers_when_learned_and_when_predicted(
    way: str, cents: list[int]
) -> None:
    values = np.array(cents) / 100
    written = [WAYS[way].format(abs(value)) for value in values]
    written = [("-" if value < 0 else "") + word for value, word in zip(values, written, strict=True)]
    frame = pd.DataFrame({"price": pd.Series(written, dtype=object), "x": np.arange(len(values)) * 1.5})
    dataset = load(frame, y=np.arange(len(values)) * 0.5)
    np.testing.assert_array_equal(number(dataset, "price"), values)
    np.testing.assert_array_equal(number(load_like(frame[:2], dataset.schema), "price"), values[:2])
    unusual = any(mark in word for word in written for mark in "$€%,")
    assert any("'price' is read as numbers, such as" in note for note in dataset.notes) == unusual


def test_a_word_that_is_no_amount_is_named_when_it_is_to_be_predicted() -> None:
    frame = pd.DataFrame({"price": [f"${row}.50" for row in range(30)], "x": np.arange(30) * 0.5})
    dataset = load(frame, y=np.arange(30) * 0.5)
    with pytest.raises(SchemaError, match=r"'price' must hold numbers, however row 1 .* says 'free'"):
        load_like(frame.assign(price=["$3", *["free"] * 29]), dataset.schema)


def test_versions_and_phone_numbers_are_no_amounts() -> None:
    words_of = {
        "version": ["1.2.3", "1.2.4", "2.0.1"],
        "phone": ["555-1234", "555-9876", "555-0000"],
        "size": ["1,2", "1,23,4", "12,34"],
        "unit": ["3kg", "4kg", "5kg"],
    }
    frame = pd.DataFrame({name: np.resize(values, 90) for name, values in words_of.items()})
    dataset = load(frame, y=np.arange(90) * 0.5)
    assert set(dataset.schema.categories) == set(words_of)


def test_a_target_of_amounts_is_a_regression_and_a_few_of_them_are_classes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.arange(60) * 0.5, "cost": [f"${1000 + 7 * row:,}" for row in range(60)]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    dataset = load(tmp_path / "t.csv", test=tmp_path / "t.csv")
    assert dataset.task == "regression"
    np.testing.assert_array_equal(dataset.labels[:60, 0], 1000 + 7 * np.arange(60))
    np.testing.assert_array_equal(dataset.labels[60:], dataset.labels[:60])
    frame["cost"] = np.resize(["10%", "20%", "5%"], 60)
    frame.to_csv(tmp_path / "few.csv", index=False)
    few = load(tmp_path / "few.csv", test=tmp_path / "few.csv")
    assert few.classes == ("10%", "20%", "5%")


def test_dates_with_points_are_those_with_dashes() -> None:
    days = pd.date_range("2023-12-25", periods=40, freq="31h")
    iso = pd.DataFrame({"when": days.strftime("%Y-%m-%d %H:%M"), "x": np.arange(40) * 0.5})
    dotted = iso.assign(when=days.strftime("%d.%m.%Y %H:%M"))
    one, other = (load(frame, y=np.arange(40) * 0.5) for frame in (iso, dotted))
    assert other.schema.dates == ("when",)
    np.testing.assert_array_equal(one.inputs["numbers"], other.inputs["numbers"])
    again = load_like(dotted[:3], one.schema)
    np.testing.assert_array_equal(again.inputs["numbers"], one.inputs["numbers"][:3])


def test_dates_in_an_order_that_cannot_be_known_are_left_out_and_say_how_to_write_them() -> None:
    for when in (
        [f"{1 + row % 12}/{1 + row % 28}/24" for row in range(60)],  # of which century?
        [f"{1 + row % 12}/{1 + row % 11}/2024" for row in range(60)],  # is 3/2 in March?
        [f"{1 + row % 28}/{1 + row % 27}/2024" for row in range(60)],  # of both kinds
    ):
        frame = pd.DataFrame({"when": when, "x": np.arange(60) * 0.5})
        dataset = load(frame, y=np.arange(60) * 0.5)
        assert not dataset.schema.dates
        assert any("(dates that cannot be told for sure; write 2026-01-31)" in note for note in dataset.notes)


@pytest.mark.parametrize(("style", "first"), [("%m/%d/%Y", "month"), ("%d/%m/%Y", "day")])
def test_dates_with_slashes_are_read_in_the_order_that_some_of_them_show(style: str, first: str) -> None:
    days = pd.date_range("2023-12-25", periods=60, freq="31h")
    iso = pd.DataFrame({"when": days.strftime("%Y-%m-%d %H:%M"), "x": np.arange(60) * 0.5})
    slashed = iso.assign(when=days.strftime(style + " %H:%M"))
    one, other = (load(frame, y=np.arange(60) * 0.5) for frame in (iso, slashed))
    assert other.schema.month_first == (("when",) if first == "month" else ())
    assert any(f"'when' is read as dates, the {first} first (" in note for note in other.notes)
    np.testing.assert_array_equal(one.inputs["numbers"], other.inputs["numbers"])
    # rows that alone would not show it, and rows written the other way
    plain = np.flatnonzero(days.day <= 12)
    again = load_like(slashed.iloc[plain], schema_from(json.loads(json.dumps(asdict(other.schema)))))
    np.testing.assert_array_equal(again.inputs["numbers"], one.inputs["numbers"][plain])
    wrong = "31/12/2024" if first == "month" else "12/31/2024"
    with pytest.raises(SchemaError, match="'when' must hold dates like 2026-01-31"):
        load_like(slashed.head(2).assign(when=wrong), other.schema)


def test_classes_that_differ_in_case_alone_are_named() -> None:
    dataset = load(pd.DataFrame({"x": np.arange(40.0)}), y=np.resize(["Yes", "no", "yes", "No"], 40))
    assert any("'No' and 'no' differ in upper and lower case alone" in note for note in dataset.notes)


@pytest.mark.parametrize("name", ["Id", "order_no", "Kunden-Nr", "invoiceNo", "Unnamed: 0", "key"])
def test_whole_numbers_that_all_differ_number_the_rows_where_their_name_says_so(name: str) -> None:
    rows = np.arange(60)
    dataset = load(pd.DataFrame({name: 1000 + 7 * rows, "t": rows, "x": rows % 7 * 0.5}), y=rows % 5 * 0.5)
    assert dataset.schema.numbers == ("t", "x")
    assert f"column '{name}' is left out: it numbers the rows" in dataset.notes


@pytest.mark.parametrize("name", ["patient_id", "Subject", "customer no", "userId"])
@pytest.mark.parametrize("words", [True, False])
def test_a_column_that_may_say_which_rows_belong_together_is_asked_about(name: str, words: bool) -> None:
    who = np.arange(120) // 4
    frame = pd.DataFrame({name: [f"p{one}" for one in who] if words else who, "x": np.arange(120) * 0.5})
    dataset = load(frame, y=np.arange(120) * 0.5)
    asked = f"column '{name}' has 30 values in 120 rows: where rows of one value belong together, --groups "
    assert any(note.startswith(asked + shlex.quote(name)) for note in dataset.notes)


def test_who_has_named_the_groups_is_not_asked_and_neither_are_kinds_numbers_and_row_numbers() -> None:
    who = np.arange(120)
    frame = pd.DataFrame(
        {
            "patient_id": who // 4,
            "group": who % 3,
            "case": who,
            "width": who // 4,
            "user": who * 0.25,
        }
    )
    dataset = load(frame, y=who * 0.5, recipe=DataRecipe(groups="patient_id"))
    assert not any("belong together" in note for note in dataset.notes)


def sheet(tmp_path: Path) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "size": [1.5, None, 3.0] * 20,
            "colour": ["red", "blue", None] * 20,
            "day": pd.to_datetime(["2026-01-31", "2026-02-01", None] * 20),
            "y": ["a", "b"] * 30,
        }
    )


@pytest.mark.parametrize(
    "kind", ["xlsx", "list.json", "lines.jsonl", "columns.json", "indented.json", "feather"]
)
def test_a_table_says_the_same_whatever_kind_of_file_it_is_in(kind: str, tmp_path: Path) -> None:
    frame = sheet(tmp_path)
    path = tmp_path / f"table.{kind}"
    texts = frame.assign(day=frame["day"].dt.strftime("%Y-%m-%d"))
    if kind == "xlsx":
        frame.to_excel(path, index=False)
    elif kind == "feather":
        frame.to_feather(path)
    elif kind == "columns.json":
        texts.to_json(path)
    else:
        texts.to_json(path, orient="records", lines="lines" in kind, indent=1 if "indented" in kind else None)
    expected, found = load(frame, target="y"), load(path, target="y")
    assert found.schema == expected.schema
    for name, values in expected.inputs.items():
        np.testing.assert_array_equal(found.inputs[name], values)
    np.testing.assert_array_equal(found.labels, expected.labels)
    again = load_like(path, expected.schema)
    np.testing.assert_array_equal(again.inputs["numbers"], expected.inputs["numbers"])


def test_the_first_sheet_with_values_is_read_and_others_are_named(tmp_path: Path) -> None:
    frame, path = sheet(tmp_path), tmp_path / "book.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame().to_excel(book, sheet_name="empty")
        frame.to_excel(book, sheet_name="data", index=False)
        frame.head(3).to_excel(book, sheet_name="more", index=False)
    dataset = load(path, target="y")
    assert len(dataset) == 60
    assert dataset.notes[0] == "of the workbook's 2 sheets the first, 'data', is read, not 'more'"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame().to_excel(book, sheet_name="empty")
    with pytest.raises(AyatoriError, match="its sheets are empty"):
        load(path, target="y")
    frame.rename(columns={"size": "day"}).to_excel(path, index=False)
    with pytest.raises(AyatoriError, match="'day' names 2 columns"):
        load(path, target="y")
