"""A column of lists of numbers, such as embeddings, is a column for each of their places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ayatori.data import load, load_like, read_blocks
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError


def vectors(rows: int = 60, width: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, width))


def frame(values: np.ndarray) -> pd.DataFrame:
    kinds = np.where(values[:, 0] > 0, "yes", "no")
    return pd.DataFrame({"age": np.arange(len(values)), "embedding": list(values), "kind": kinds})


@pytest.mark.parametrize(
    "ending", ["parquet", "fixed", "large", "feather", "json", "frame", "arrow", "tuples"]
)
def test_lists_are_read_from_whatever_holds_them(tmp_path: Path, ending: str) -> None:
    values = vectors()
    table = frame(values)
    path = tmp_path / f"table.{ending}"
    data: object = path
    if ending in ("fixed", "large"):
        kind = pa.list_(pa.float32(), 5) if ending == "fixed" else pa.large_list(pa.float64())
        arrow = pa.table(
            {"age": table["age"], "embedding": pa.array(list(values), kind), "kind": table["kind"]}
        )
        pq.write_table(arrow, tmp_path / "table.parquet")
        data = tmp_path / "table.parquet"
    elif ending == "frame":
        data = table
    elif ending == "tuples":
        data = table.assign(embedding=[tuple(row) for row in values.tolist()])
    elif ending == "arrow":
        data = pa.Table.from_pandas(table)
    elif ending == "json":
        table.to_json(path, orient="records", double_precision=15)
    else:
        getattr(table, f"to_{ending}")(path)
    dataset = load(data, target="kind")
    assert dataset.schema.numbers == ("age", *(f"embedding[{place}]" for place in range(5)))
    assert np.allclose(dataset.inputs["numbers"][:, 1:], values, rtol=1e-6)
    assert any("'embedding' of 5" in note for note in dataset.notes)


def test_a_missing_list_is_a_row_of_gaps_and_new_rows_are_read_alike(tmp_path: Path) -> None:
    table = frame(vectors())
    table.loc[3, "embedding"] = None
    table.to_parquet(tmp_path / "table.parquet")
    dataset = load(tmp_path / "table.parquet")
    assert np.isnan(dataset.inputs["numbers"][3, 1:]).all()
    assert not np.isnan(np.delete(dataset.inputs["numbers"], 3, axis=0)).any()
    again = load_like(tmp_path / "table.parquet", dataset.schema)
    blocks = [block.inputs["numbers"] for block in read_blocks(tmp_path / "table.parquet", dataset.schema)]
    for found in (again.inputs["numbers"], np.concatenate(blocks)):
        np.testing.assert_array_equal(found, dataset.inputs["numbers"])


def test_lists_of_whole_numbers_are_numbers(tmp_path: Path) -> None:
    table = frame(vectors())
    table["embedding"] = [list(map(int, row)) for row in np.arange(120).reshape(60, 2)]
    table.to_parquet(tmp_path / "table.parquet")
    assert load(tmp_path / "table.parquet").inputs["numbers"][:, 1:].tolist() == [
        [2 * row, 2 * row + 1] for row in range(60)
    ]


def test_a_row_with_more_or_fewer_numbers_is_named(tmp_path: Path) -> None:
    table = frame(vectors())
    table.at[57, "embedding"] = np.arange(3.0)
    with pytest.raises(
        AyatoriError, match="'embedding' must hold 5 numbers in every row, however row 58 holds 3"
    ):
        load(table, target="kind")


@pytest.mark.parametrize("lists", [[[1.0], [1.0, 2.0]], [["a", "b"], ["c", "d"]], [[], []]])
def test_lists_that_are_no_vectors_are_left_out_as_before(lists: list) -> None:
    table = frame(vectors())
    table["embedding"] = lists * 30
    dataset = load(table, target="kind")
    assert dataset.schema.numbers == ("age",)
    assert any("column 'embedding' is left out" in note for note in dataset.notes)


def test_a_target_of_another_kind_is_refused_by_what_it_is() -> None:
    table = frame(vectors())
    table["labels"] = [{"red": 1}, {"red": 2}] * 30
    with pytest.raises(AyatoriError, match="'labels' holds values of type struct"):
        load(table, target="labels")


def test_a_column_of_lists_is_left_out_by_its_name() -> None:
    dataset = load(frame(vectors()), recipe=DataRecipe(target="kind", drop=("embedding",)))
    assert dataset.schema.numbers == ("age",)
