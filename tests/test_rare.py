"""Classes that are too rare are left out when asked for, with all that is of their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_data_pictures import folder_of

from ayatori.data import load
from ayatori.plan import make_plan
from ayatori.recipe import DataRecipe, PlanRecipe
from ayatori.records import AyatoriError


def frame_of(names: list[str]) -> pd.DataFrame:
    rows = len(names)
    return pd.DataFrame(
        {
            "size": np.arange(rows) / 7,
            "colour": np.resize(["blue", "red"], rows),
            "who": np.arange(rows) // 2,
            "when": np.arange(rows)[::-1] / 3,
            "case": [f"c{row}" for row in range(rows)],
            "kind": names,
        }
    )


@given(
    names=st.lists(st.sampled_from("abcde"), min_size=8, max_size=60).filter(
        lambda names: sum(names.count(name) >= 3 for name in set(names)) >= 2
    )
)
def test_what_is_left_is_what_a_table_without_the_rare_classes_gives(names: list[str]) -> None:
    frame = frame_of(names)
    columns = {"target": "kind", "groups": "who", "time": "when", "ids": "case"}
    found = load(frame, recipe=DataRecipe(rarest=3, **columns))
    kept = frame[frame.groupby("kind")["kind"].transform("size") >= 3]
    expected = load(kept, recipe=DataRecipe(**columns))
    assert found.classes == expected.classes
    for name in ("labels", "ids", "order"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.inputs["numbers"], expected.inputs["numbers"])
    assert found.groups is not None
    np.testing.assert_array_equal(
        found.groups[:, None] == found.groups, kept["who"].to_numpy()[:, None] == kept["who"].to_numpy()
    )
    rare = {name for name in names if names.count(name) < 3}
    assert bool(rare) == any("left out" in note and "fewer than 3 rows" in note for note in found.notes)


def test_a_class_that_stops_a_run_can_be_left_out_and_the_sentence_says_how() -> None:
    frame = frame_of(["a", "b"] * 30 + ["c"])
    with pytest.raises(AyatoriError, match="leave out classes of few rows with --rarest 7"):
        make_plan(load(frame, target="kind"), PlanRecipe())
    left = load(frame, recipe=DataRecipe(target="kind", rarest=7))
    assert make_plan(left, PlanRecipe()).roles.shape == (60, 5)
    assert left.fingerprint != load(frame, target="kind").fingerprint


def test_rare_classes_leave_a_test_of_its_own_too_but_are_counted_without_it(tmp_path: Path) -> None:
    frame_of(["a", "b"] * 6 + ["c"] * 2).to_csv(tmp_path / "train.csv", index=False)
    frame_of(["a", "c", "c", "c", "b"]).to_csv(tmp_path / "test.csv", index=False)
    recipe = DataRecipe(target="kind", rarest=4)
    found = load(tmp_path / "train.csv", recipe=recipe, test=tmp_path / "test.csv")
    assert found.fixed_test is not None
    assert found.labels[found.fixed_test].tolist() == [0, 1]
    assert found.notes[-1] == "5 rows of 1 class with fewer than 4 rows are left out: 'c' (2)"
    frame_of(["a"] * 5).drop(columns="kind").to_csv(tmp_path / "blind.csv", index=False)
    blind = load(tmp_path / "train.csv", recipe=recipe, test=tmp_path / "blind.csv", blind=True)
    assert blind.fixed_test is not None
    assert blind.fixed_test.sum() == 5


def test_folders_of_few_pictures_can_be_left_out(tmp_path: Path) -> None:
    folder_of(tmp_path)
    folder_of(tmp_path / "more", rows=2, classes=("odd", "unused"))
    (tmp_path / "more" / "odd").rename(tmp_path / "odd")
    found = load(tmp_path, recipe=DataRecipe(rarest=3))
    assert found.classes == ("eight", "three")
    assert len(found) == len(found.inputs["image"]) == 12


def test_what_has_no_classes_or_keeps_none_is_refused() -> None:
    frame = frame_of(["a", "b"] * 4)
    with pytest.raises(AyatoriError, match="for classes, however the task is regression"):
        load(frame, recipe=DataRecipe(target="size", rarest=3))
    with pytest.raises(AyatoriError, match="none has; use a smaller number"):
        load(frame, recipe=DataRecipe(target="kind", rarest=5))
