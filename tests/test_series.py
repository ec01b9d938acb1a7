"""Measurements over time are learned as series, from whatever they are kept in, and drawn as lines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import command
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

import ayatori
from ayatori.augment import vary_series
from ayatori.augment.changes import Changes
from ayatori.data import load, load_like, read_blocks
from ayatori.data.measured import counts_steps, read_ts
from ayatori.data.steps import averaged, packed
from ayatori.data.twins import find_twins
from ayatori.evaluate.matrix import described
from ayatori.explore.thumbs import drawn
from ayatori.model_files import load_model
from ayatori.nets.network import NetSpec
from ayatori.nets.series import SERIES_NETS, SeriesFront, build_series
from ayatori.recipe import DataRecipe, NetRecipe, PlanRecipe, Recipe, TrainRecipe
from ayatori.records import STOP, UNUSED, AyatoriError, SchemaError
from ayatori.serve import make_app

STEPS = 40
QUICK = ("--preset", "quick", "--epochs", "3", "--folds", "2", "--no-look")


def waves(rows: int = 24, channels: int = 2, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Slow and fast waves of any phase, in noise: (rows, channels, STEPS), and which they are."""
    chance = np.random.default_rng(seed)
    kinds = ["slow", "fast"] * (rows // 2)
    turns = np.array([2.0 if kind == "slow" else 5.0 for kind in kinds])[:, None, None]
    phase = chance.uniform(0, 2 * np.pi, (rows, channels, 1))
    wave = np.sin(2 * np.pi * turns * np.arange(STEPS) / STEPS + phase)
    return (wave + 0.2 * chance.normal(size=wave.shape)).astype(np.float32), kinds


def long_table(series: np.ndarray, kinds: list[str]) -> pd.DataFrame:
    """A step in each row, the series one after another."""
    parts = []
    for row, (one, kind) in enumerate(zip(series, kinds, strict=True)):
        columns = {f"sensor {c}": values for c, values in enumerate(one)}
        named = {"step": range(one.shape[1]), "name": f"s{row}"}
        parts.append(pd.DataFrame({**named, **columns, "who": f"w{row % 6}", "kind": kind}))
    return pd.concat(parts, ignore_index=True)


def wide_table(series: np.ndarray, kinds: list[str]) -> pd.DataFrame:
    """A series in each row, channel by channel."""
    columns = {
        f"sensor {c}_{t}": series[:, c, t] for c in range(series.shape[1]) for t in range(series.shape[2])
    }
    return pd.DataFrame({"name": [f"s{row}" for row in range(len(series))], **columns, "kind": kinds})


def ts_file(path: Path, series: np.ndarray, kinds: list[str]) -> Path:
    lines = [
        ":".join(",".join(repr(float(value)) for value in channel) for channel in one) + f":{kind}"
        for one, kind in zip(series, kinds, strict=True)
    ]
    head = ["# a comment", "@problemName waves", "@timeStamps false", "@classLabel true slow fast", "@data"]
    path.write_text("\n".join([*head, *lines]) + "\n")
    return path


def folder_of(root: Path, series: np.ndarray, kinds: list[str]) -> Path:
    for row, (one, kind) in enumerate(zip(series, kinds, strict=True)):
        (root / kind).mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame({"seconds": np.arange(one.shape[1]) / 50, "x": one[0], "y": one[1]})
        frame.to_csv(root / kind / f"take {row:03}.csv", index=False)
    return root


# --- reading


def test_the_same_series_are_read_from_every_source(tmp_path: Path) -> None:
    series, kinds = waves()
    long_table(series, kinds).to_csv(tmp_path / "long.csv", index=False)
    wide_table(series, kinds).to_csv(tmp_path / "wide.csv", index=False)
    read = [
        load(ts_file(tmp_path / "waves.ts", series, kinds)),
        load(tmp_path / "long.csv", recipe=DataRecipe(series="name", drop=("who",))),
        load(tmp_path / "wide.csv", recipe=DataRecipe(series="row", ids="name")),
        load(series, y=kinds, recipe=DataRecipe(series="row")),
    ]
    for dataset in read:
        np.testing.assert_allclose(dataset.inputs["series"], series, rtol=1e-6)
        assert [dataset.classes[code] for code in dataset.labels] == kinds
        assert dataset.schema.series == (2, STEPS)
    assert read[1].ids.tolist() == read[2].ids.tolist() == [f"s{row}" for row in range(24)]


def test_a_folder_of_tables_holds_a_series_in_each_and_its_clock_is_no_channel(tmp_path: Path) -> None:
    series, kinds = waves()
    dataset = load(folder_of(tmp_path / "waves", series, kinds))
    assert dataset.schema.channels == ("x", "y")
    assert "column 'seconds' is left out: it tells the time of a step" in dataset.notes
    order = [int(re.findall(r"\d+", name)[0]) for name in dataset.ids]
    np.testing.assert_allclose(dataset.inputs["series"], series[order], rtol=1e-6)
    assert [dataset.classes[code] for code in dataset.labels] == [kinds[row] for row in order]


def test_a_table_of_paths_names_the_files_and_their_groups(tmp_path: Path) -> None:
    series, kinds = waves(8)
    folder_of(tmp_path / "waves", series, kinds)
    table = pd.DataFrame(
        {
            "file": [f"waves/{kind}/take {row:03}.csv" for row, kind in enumerate(kinds)],
            "person": [f"p{row % 4}" for row in range(8)],
            "strength": np.arange(8) / 3,
        }
    )
    table.to_csv(tmp_path / "takes.csv", index=False)
    dataset = load(tmp_path / "takes.csv", recipe=DataRecipe(target="strength", groups="person"))
    assert dataset.task == "regression"
    assert dataset.groups is not None
    assert len(set(dataset.groups.tolist())) == 4
    np.testing.assert_allclose(dataset.inputs["series"], series, rtol=1e-6)


def test_a_picture_beside_the_folders_does_not_make_them_folders_of_pictures(tmp_path: Path) -> None:
    series, kinds = waves(8)
    folder = folder_of(tmp_path / "waves", series, kinds)
    (folder / "overview.png").write_bytes(b"")
    assert load(folder).schema.kind == "series"


def test_names_of_tables_that_are_not_there_are_only_words() -> None:
    frame = pd.DataFrame({"log": ["a.csv", "b.csv"] * 10, "size": np.arange(20.0), "kind": ["x", "y"] * 10})
    assert load(frame).schema.kind == "table"


def test_a_table_without_a_header_is_read_when_each_row_is_a_series(tmp_path: Path) -> None:
    series, kinds = waves(channels=1)
    rows = np.column_stack([np.array(kinds) == "fast", series[:, 0]])
    np.savetxt(tmp_path / "bare.csv", rows, delimiter=",")
    dataset = load(tmp_path / "bare.csv", recipe=DataRecipe(series="row", target="1"))
    np.testing.assert_allclose(dataset.inputs["series"], series, rtol=1e-6)
    np.savetxt(tmp_path / "new.csv", series[:, 0], delimiter=",")  # without the label
    again = load_like(tmp_path / "new.csv", dataset.schema)
    np.testing.assert_array_equal(again.inputs["series"], dataset.inputs["series"])


def test_shorter_series_end_in_gaps_and_long_ones_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "x.ts"
    path.write_text("@classLabel true a b\n@data\n1,2,3,4,5:a\n1,?,3:b\n7,8:a\n")
    dataset = load(path)
    first, second, third = dataset.inputs["series"][:, 0]
    np.testing.assert_array_equal(first, [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(second, [1, np.nan, 3, np.nan, np.nan])
    np.testing.assert_array_equal(third, [7, 8, np.nan, np.nan, np.nan])
    assert any("2 to 5 steps" in note for note in dataset.notes)
    short = load(path, recipe=DataRecipe(series_steps=4))
    assert short.schema.stretch == 2
    np.testing.assert_array_equal(short.inputs["series"][0, 0], [1.5, 3.5, 5])


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    stretch=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_averaging_is_the_mean_of_so_many_steps(lengths: list[int], stretch: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    series = [chance.normal(size=(2, length)).astype(np.float32) for length in lengths]
    steps = -(-max(lengths) // stretch)
    whole = packed(series, (2, steps), stretch)
    for row, one in zip(whole, series, strict=True):
        parts = [one[:, start : start + stretch].mean(axis=1) for start in range(0, one.shape[1], stretch)]
        np.testing.assert_allclose(row[:, : len(parts)], np.stack(parts, axis=1), rtol=1e-4, atol=1e-6)
        assert np.isnan(row[:, len(parts) :]).all()
        np.testing.assert_array_equal(averaged(one, 1), one)


def test_a_column_that_is_the_same_clock_in_all_series_counts_the_steps() -> None:
    count = np.array([0, 1, 2, 0, 1])
    assert counts_steps(count * 0.1, count)
    assert not counts_steps(np.array([0.0, 1, 2, 0, 5]), count)
    assert not counts_steps(np.array([2.0, 1, 0, 2, 1]), count)


def test_a_time_that_goes_on_is_no_channel_and_one_that_goes_back_is_refused() -> None:
    series, kinds = waves(6)
    long = long_table(series, kinds)
    long["timestamp (ms)"] = 1_000 + 7 * np.arange(len(long))  # another one in each series
    long["date"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(len(long)), unit="min")
    how = DataRecipe(series="name", target="kind", drop=("who",))
    dataset = load(long, recipe=how)
    assert dataset.schema.channels == ("sensor 0", "sensor 1")
    assert "column 'timestamp (ms)' is left out: it tells the time of a step" in dataset.notes
    clocks = ["timestamp (ms)", "date", "step"]
    load(long.sample(frac=1, random_state=0).drop(columns=clocks), recipe=how)  # nothing tells the order
    for name in clocks:
        others = [other for other in clocks if other != name]
        shuffled = long.sample(frac=1, random_state=0).drop(columns=others)
        with pytest.raises(AyatoriError, match="must be in the order of time, however column"):
            load(shuffled, recipe=how)
    flags = long.assign(frame=np.arange(len(long)) % 3)
    assert "frame" in load(flags, recipe=how).schema.channels
    rising = long.assign(energy=np.arange(len(long)) ** 2.0)
    assert "energy" in load(rising, recipe=how).schema.channels


def test_what_is_cut_at_the_test_is_like_the_development_rows(tmp_path: Path) -> None:
    series, kinds = waves()
    longer = np.concatenate([series, series[:, :, :7]], axis=2)
    ts_file(tmp_path / "test.ts", longer, kinds)
    dataset = load(ts_file(tmp_path / "train.ts", series, kinds), test=tmp_path / "test.ts")
    assert dataset.inputs["series"].shape == (48, 2, STEPS)
    np.testing.assert_array_equal(dataset.inputs["series"][24:], dataset.inputs["series"][:24])


BAD = {
    "no data": ("@classLabel true a b\n", "must hold series after a line @data"),
    "words": ("@classLabel true a b\n@data\n1,2:a\n1,x:b\n", "line 4 .* must hold numbers"),
    "infinite": ("@classLabel true a b\n@data\n1,2:a\n1,inf:b\n", "line 4 .* must hold finite numbers"),
    "channels": ("@classLabel true a b\n@data\n1,2:3,4:a\n1,2:b\n", "as many channels as the first, 2"),
    "stamps": ("@timeStamps true\n@classLabel true a b\n@data\n1,2:a\n", "without time stamps"),
    "one": ("@classLabel true a b\n@data\n1,2:a\n", "two series or more"),
    "no label": ("@classLabel false\n@data\n1,2\n3,4\n", "must label its series"),
    "one step": ("@classLabel true a b\n@data\n1:a\n3:b\n", "two steps or more"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_of_series_is_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    content, sentence = BAD[name]
    (tmp_path / "bad.ts").write_text(content)
    with pytest.raises(AyatoriError, match=sentence):
        load(tmp_path / "bad.ts")


def test_a_series_that_is_labelled_twice_is_refused(tmp_path: Path) -> None:
    series, kinds = waves()
    table = long_table(series, kinds)
    table.loc[5, "kind"] = "fast"
    with pytest.raises(AyatoriError, match=r"'kind' must say the same .* series 's0' of column 'name'"):
        load(table, recipe=DataRecipe(series="name"))


def test_broken_files_are_named_and_left_out(tmp_path: Path) -> None:
    series, kinds = waves()
    folder = folder_of(tmp_path / "waves", series, kinds)
    (folder / "slow" / "empty.csv").write_text("")
    (folder / "slow" / "other.csv").write_text("a,b\n1,2\n3,4\n")
    dataset = load(folder)
    assert len(dataset) == 24
    (note,) = (note for note in dataset.notes if "broken" in note)
    assert "2 broken series files are skipped" in note
    assert "'slow/empty.csv' (it is empty)" in note
    assert "'slow/other.csv' (it has no column 'seconds')" in note
    with pytest.raises(AyatoriError, match="every series file must be readable"):
        load(folder, recipe=DataRecipe(strict=True))


def test_new_rows_must_fit_those_learned_from(tmp_path: Path) -> None:
    series, kinds = waves()
    schema = load(ts_file(tmp_path / "a.ts", series, kinds)).schema
    with pytest.raises(SchemaError, match="2 channels"):
        load_like(ts_file(tmp_path / "b.ts", series[:, :1], kinds), schema)
    wide = load(wide_table(series, kinds), recipe=DataRecipe(series="row")).schema
    with pytest.raises(SchemaError, match="'sensor 0_0' must be in the rows"):
        load_like(pd.DataFrame({"x": [1.0]}), wide)
    with pytest.raises(SchemaError, match=r"must have the shape \(2, 40\)"):
        load_like(series[:, :, :9], load(series, y=kinds, recipe=DataRecipe(series="row")).schema)


@pytest.mark.parametrize("source", ["wide", "long", "folder", "ts", "array"])
def test_blocks_hold_what_is_read_at_once(source: str, tmp_path: Path) -> None:
    series, kinds = waves()
    wide_table(series, kinds).to_csv(tmp_path / "wide.csv", index=False)
    long_table(series, kinds).to_csv(tmp_path / "long.csv", index=False)
    data, recipe = {
        "wide": (tmp_path / "wide.csv", DataRecipe(series="row", ids="name")),
        "long": (tmp_path / "long.csv", DataRecipe(series="name")),
        "folder": (folder_of(tmp_path / "waves", series, kinds), DataRecipe()),
        "ts": (ts_file(tmp_path / "waves.ts", series, kinds), DataRecipe()),
        "array": (series, DataRecipe(series="row")),
    }[source]
    schema = load(data, y=kinds if source == "array" else None, recipe=recipe).schema
    whole = load_like(data, schema)
    parts = list(read_blocks(data, schema))
    assert np.concatenate([part.ids for part in parts]).tolist() == whole.ids.tolist()
    joined = np.concatenate([part.inputs["series"] for part in parts])
    np.testing.assert_array_equal(joined, whole.inputs["series"])


def test_columns_of_a_series_may_stand_in_any_order_beside_others() -> None:
    series, kinds = waves(12)
    wide = wide_table(series, kinds)
    expected = load(wide, recipe=DataRecipe(series="row", ids="name"))
    mixed = wide[sorted(wide.columns, key=lambda name: name[::-1])].assign(age=np.arange(12) / 7)
    dataset = load(mixed, recipe=DataRecipe(series="row", ids="name", target="kind"))
    np.testing.assert_array_equal(dataset.inputs["series"], expected.inputs["series"])
    assert "columns beside the series are left out: age" in dataset.notes
    again = load_like(mixed.sample(frac=1, axis=1, random_state=0), dataset.schema)
    np.testing.assert_array_equal(again.inputs["series"], expected.inputs["series"])


def test_numbers_of_rows_are_no_steps_and_no_channels() -> None:
    series, kinds = waves(30)
    wide = wide_table(series, kinds).drop(columns="name")
    wide.insert(0, "id", np.arange(100, 130))
    dataset = load(wide, recipe=DataRecipe(series="row"))
    assert dataset.schema.series == (2, STEPS)
    assert "column 'id' is left out: it numbers the rows" in dataset.notes
    long = long_table(series, kinds).drop(columns=["step", "who"])
    long.insert(0, "Unnamed: 0", np.arange(len(long)))
    assert load(long, recipe=DataRecipe(series="name")).schema.channels == ("sensor 0", "sensor 1")


def test_a_channel_of_new_rows_is_never_taken_for_a_clock() -> None:
    series, kinds = waves()
    schema = load(long_table(series, kinds), recipe=DataRecipe(series="name", drop=("who",))).schema
    rising = np.tile(np.arange(STEPS, dtype=np.float32), (1, 2, 1))
    new = long_table(rising, ["slow"]).drop(columns="kind")
    np.testing.assert_array_equal(load_like(new, schema).inputs["series"], rising)


def test_values_that_float32_cannot_hold_are_refused(tmp_path: Path) -> None:
    series, kinds = waves()
    large = series.astype(np.float64)
    large[3, 0, 3] = 1e39
    with pytest.raises(AyatoriError, match="must be finite, however row 3"):
        load(large, y=kinds, recipe=DataRecipe(series="row"))
    for table, how in ((wide_table(large, kinds), "row"), (long_table(large, kinds), "name")):
        with pytest.raises(AyatoriError, match=r"must be below 3\.4e"):
            load(table, recipe=DataRecipe(series=how))
    schema = load(wide_table(series, kinds), recipe=DataRecipe(series="row")).schema
    with pytest.raises(AyatoriError, match=r"must be below 3\.4e"):
        load_like(wide_table(large, kinds), schema)


def test_columns_that_are_numbered_by_time_are_asked_about() -> None:
    series, kinds = waves()
    notes = load(wide_table(series, kinds)).notes
    assert any("--series row learns from their course" in note for note in notes)
    anonymous = pd.DataFrame(series[:, 0], columns=[f"V{at}" for at in range(STEPS)]).assign(kind=kinds)
    assert not any("--series" in note for note in load(anonymous).notes)


def test_equal_series_are_twins_and_different_ones_are_not() -> None:
    series, kinds = waves()
    series[7] = series[3]
    series[3, 0, 5] = series[7, 0, 5] = np.nan
    assert find_twins(load(series, y=kinds, recipe=DataRecipe(series="row"))).pairs.tolist() == [[3, 7]]


# --- networks


@pytest.mark.parametrize("name", SERIES_NETS)
@pytest.mark.parametrize("steps", [2, 3, 33, 100])
def test_every_network_takes_series_of_any_length_and_gaps(name: str, steps: int) -> None:
    front, body = build_series(NetSpec(name, "classification", 3, {"series": [2, steps], "gaps": True}))
    rows = torch.randn(5, 2, steps)
    rows[0, :, steps // 2 :] = torch.nan
    logits = body.eval()(front({"series": rows}))
    assert logits.shape == (5, 3)
    assert logits.isfinite().all()
    alone = body(front({"series": rows[:1]}))
    torch.testing.assert_close(alone, logits[:1], rtol=1e-4, atol=1e-5)


def test_the_front_scales_by_what_is_there() -> None:
    rows = np.random.default_rng(0).normal(3, 2, (50, 2, 9)).astype(np.float32)
    rows[:, 1, 5:] = np.nan
    front = SeriesFront({"series": [2, 9], "gaps": True})
    front.fit({"series": rows})
    np.testing.assert_allclose(front.mean.numpy(), np.nanmean(rows, axis=(0, 2)), rtol=1e-5)
    np.testing.assert_allclose(front.std.numpy(), np.nanstd(rows, axis=(0, 2)), rtol=1e-5)
    seen = front({"series": torch.from_numpy(rows)})
    assert seen.shape == (50, 3, 9)
    assert (seen[:, 1, 5:] == 0).all()
    assert (seen[:, 2] == 1).all()  # a step is there where any channel is


def test_values_of_rows_that_a_member_may_not_see_change_no_weight() -> None:
    series, kinds = waves()
    recipe = Recipe(
        data=DataRecipe(series="row"),
        plan=PlanRecipe(folds=2, test=0.25),
        train=TrainRecipe(epochs=2),
        preset="quick",
    )
    recipe = ayatori.recipe.change(recipe, "explore", look=False)
    first = ayatori.run(series, recipe, y=kinds)
    for member in first.members:
        other = series.copy()
        roles = first.plan.roles[:, member.index]
        unseen = np.flatnonzero((roles == UNUSED) | (roles > STOP))
        other[unseen] = other[unseen] * 50 + 7
        again = ayatori.run(other, recipe, y=kinds).members[member.index]
        for name, value in member.network.state_dict().items():
            assert torch.equal(value, again.network.state_dict()[name]), name


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    spec = NetSpec("gru", "classification", 2, {"series": [1, 9], "gaps": False}, options={"width": 12})
    with pytest.raises(AyatoriError, match="must be a multiple of 8"):
        build_series(spec)


# --- variation


def test_series_move_in_time_and_each_member_by_its_own_chance() -> None:
    rows = torch.arange(40.0).repeat(2, 3, 1, 1)
    varied = vary_series(rows, Changes(shift=0.25), [1, 2])
    moves = varied[:, :, 0, 20] - 20
    assert moves.abs().max() <= 10
    assert len(set(moves.flatten().tolist())) == 6
    again = vary_series(rows, Changes(shift=0.25), [1, 2])
    assert torch.equal(varied, again)
    assert varied.min() >= 0  # the ends go on
    assert varied.max() <= 39


def test_gaps_stay_gaps_and_what_is_hidden_is_one_while() -> None:
    rows = torch.ones(1, 8, 2, 50)
    rows[0, 0, :, 30:] = torch.nan
    hidden = vary_series(rows, Changes(stripes=0.5), [0])[0, 1:].isnan()
    assert (hidden[:, 0] == hidden[:, 1]).all()
    for row in hidden[:, 0].int().tolist():
        assert sum(a != b for a, b in zip([0, *row], [*row, 0], strict=True)) in (0, 2)
    jittered = vary_series(rows + torch.randn(1, 8, 2, 50), Changes(jitter=0.1, contrast=0.2), [0])
    assert jittered[0, 0, :, 30:].isnan().all()
    assert jittered[0, 1:].isfinite().all()


# --- what simple models and people see


@given(st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_what_is_measured_of_a_series_depends_on_it_alone(seed: int) -> None:
    series, _ = waves(6, seed=seed)
    series[2, 0, 20:] = np.nan
    series[3, 1] = np.nan
    whole = described(series)
    assert np.isfinite(whole).all()
    np.testing.assert_allclose(described(series[2:4]), whole[2:4], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole[0, :2], series[0].mean(axis=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(whole[0, 2:4], series[0].std(axis=1), rtol=1e-4, atol=1e-6)


def test_series_are_drawn_from_low_to_high() -> None:
    rising = np.stack([np.linspace(0, 1, 30), np.linspace(1, 0, 30)])[:, None].astype(np.float32)
    up, down = drawn(rising, np.array([0, 1]), 48)
    ink = 255 - up.min(axis=0).astype(int)
    left, right = ink[:, 4:16].sum(axis=1).argmax(), ink[:, -16:-4].sum(axis=1).argmax()
    assert left > right  # low values are at the bottom
    np.testing.assert_allclose(up[:, :, ::-1], down, atol=60)
    gap = rising.copy()
    gap[0, 0, 10:20] = np.nan
    assert (drawn(gap, np.array([0]), 48)[0, :, :, 20:26] == 255).all()


# --- the whole flow


@pytest.mark.parametrize("net", ["cnn", "gru", "transformer"])
def test_waves_are_told_apart_by_every_kind_of_network(net: str) -> None:
    series, kinds = waves(120, channels=1)
    recipe = Recipe(
        data=DataRecipe(series="row"), net=NetRecipe(net), plan=PlanRecipe(folds=2, test=0.2), preset="quick"
    )
    recipe = ayatori.recipe.change(recipe, "explore", look=False)
    result = ayatori.run(series, ayatori.recipe.change(recipe, "train", epochs=12), y=kinds)
    (entry,) = (entry for entry in result.leaderboard if entry.name == "mean of 2 folds")
    assert entry.scores["accuracy"].value >= 0.9


def test_a_folder_of_series_goes_from_the_look_to_predictions_a_page_and_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    series, kinds = waves(60)
    told = ["slow" if row % 10 == 5 else kind for row, kind in enumerate(kinds)]  # some are wrong
    folder, out = folder_of(tmp_path / "my waves", series, told), tmp_path / "run"
    assert command(monkeypatch, "run", str(folder), *QUICK[:6], "--out", str(out)) == 0
    said = capsys.readouterr().out
    assert "series of 2 channels and 40 steps" in said
    assert "the channels are x, y" in said
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "series of 2 channels and 40 steps" in page
    assert "data:image/webp" in page  # the worst mistakes, as lines
    assert json.loads((out / "data.json").read_text())["kind"] == "series"
    assert command(monkeypatch, "predict", str(out), str(folder), "-o", str(tmp_path / "p.csv")) == 0
    predicted = pd.read_csv(tmp_path / "p.csv")
    one = folder / "slow" / "take 000.csv"
    assert command(monkeypatch, "predict", str(out), str(one), "-o", str(tmp_path / "one.csv")) == 0
    alone = pd.read_csv(tmp_path / "one.csv").iloc[0]
    row = predicted.loc[predicted["id"] == "slow/take 000.csv"].iloc[0]
    assert alone["p_slow"] == pytest.approx(row["p_slow"], rel=1e-4)
    client = TestClient(make_app(load_model(out), max_rows=100, max_bytes=10**6), base_url="http://127.0.0.1")
    with client:
        asked = [
            client.post("/predict", files=[("file", ("take.csv", one.read_bytes(), "text/csv"))]),
            client.post("/predict", json={"series": [series[0].astype(float).tolist()]}),
            client.post("/predict", content=one.read_bytes(), headers={"content-type": "text/csv"}),
        ]
        for reply in asked:
            assert reply.status_code == 200, reply.text
            (said_row,) = reply.json()["rows"]
            assert said_row["probabilities"]["slow"] == pytest.approx(row["p_slow"], rel=1e-3)
        for wrong in ({"series": [[[1, 2]]]}, {"series": [[["a"], [1]]]}, {"rows": [[1]]}, {"series": []}):
            assert client.post("/predict", json=wrong).status_code == 422
        assert "a series each" in client.get("/").text
        example = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]
        taken = client.post("/predict", json=example["application/json"]["example"])
        assert taken.status_code == 200


@pytest.mark.parametrize("source", ["wide", "long", "ts"])
def test_a_run_on_each_kind_of_file_predicts_new_ones_and_answers_them(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series, kinds = waves()
    wide_table(series, kinds).to_csv(tmp_path / "wide.csv", index=False)
    long_table(series, kinds).to_csv(tmp_path / "long.csv", index=False)
    ts_file(tmp_path / "ts.ts", series, kinds)
    data, told = {
        "wide": ("wide.csv", ("--series", "row", "--ids", "name")),
        "long": ("long.csv", ("--series", "name", "--drop", "who")),
        "ts": ("ts.ts", ()),
    }[source]
    out = tmp_path / "run"
    assert command(monkeypatch, "run", str(tmp_path / data), *told, *QUICK, "--out", str(out)) == 0
    new = tmp_path / data
    if source != "ts":
        new = tmp_path / "new.csv"
        pd.read_csv(tmp_path / data).drop(columns="kind").to_csv(new, index=False)
    assert command(monkeypatch, "predict", str(out), str(new), "-o", str(tmp_path / "p.csv")) == 0
    predicted = pd.read_csv(tmp_path / "p.csv", dtype={"id": str})
    assert len(predicted) == 24
    with TestClient(
        make_app(load_model(out), max_rows=100, max_bytes=10**6), base_url="http://127.0.0.1"
    ) as client:
        reply = client.post("/predict", files=[("file", (new.name, new.read_bytes(), "text/csv"))])
        assert reply.status_code == 200, reply.text
        rows = reply.json()["rows"]
    assert [row["id"] for row in rows] == predicted["id"].tolist()
    found = [row["probabilities"]["fast"] for row in rows]
    np.testing.assert_allclose(found, predicted["p_fast"], rtol=1e-3, atol=1e-5)


def test_a_killed_run_on_series_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    series, kinds = waves(60)
    data = ts_file(tmp_path / "waves.ts", series, kinds)
    words = [sys.executable, "-m", "ayatori", "run", str(data), "--no-look", "--folds", "2", "--net", "gru"]
    words += ["--epochs", "30", "--augment", "standard"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([*words, "--out", str(whole)], check=True, env=environment, capture_output=True)
    process = subprocess.Popen(
        [*words, "--out", str(cut)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list(cut.glob("members/*/*")) and not list(cut.glob("*heckpoint*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = [sys.executable, "-m", "ayatori", "resume", str(cut)]
    subprocess.run(again, check=True, env=environment, capture_output=True)
    first, second = (pd.read_parquet(run / "predictions.parquet") for run in (whole, cut))
    pd.testing.assert_frame_equal(first, second)


def test_a_network_that_learned_other_series_can_be_built_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ts_file(tmp_path / "source.ts", *waves(seed=1))
    data = ts_file(tmp_path / "data.ts", *waves(seed=2))
    out = tmp_path / "source"
    assert command(monkeypatch, "run", str(source), *QUICK, "--out", str(out)) == 0
    for way in ("none", "last", "all"):
        run = tmp_path / way
        words = ("run", str(data), *QUICK, "--pretrained", str(out), "--finetune", way, "--out", str(run))
        assert command(monkeypatch, *words) == 0
        assert command(monkeypatch, "predict", str(run), str(source), "-o", str(tmp_path / f"{way}.csv")) == 0
    capsys.readouterr()
    for row, sentence in ((source, "taught the run"), (tmp_path / "one.ts", "must have 2 channels")):
        if row != source:
            series, kinds = waves(seed=3)
            ts_file(row, series[:, :1], kinds)
        words = ("run", str(row), *QUICK, "--pretrained", str(out), "--out", str(tmp_path / "refused"))
        assert command(monkeypatch, *words) == 2
        assert sentence in capsys.readouterr().err
    assert command(monkeypatch, "run", str(data), *QUICK, "--pretrained", "resnet18", "--out", "x") == 2


def test_estimators_learn_from_arrays_of_series(tmp_path: Path) -> None:
    series, kinds = waves(40)
    classifier = ayatori.Classifier(series="row", net="cnn", folds=2, epochs=4, preset="quick").fit(
        series, kinds
    )
    assert classifier.out_of_fold_.shape == (40, 2)
    classifier.save(tmp_path / "model")
    again = ayatori.Classifier.load(tmp_path / "model").predict_proba(series)
    np.testing.assert_array_equal(again, classifier.predict_proba(series))
    flat = series[:, 0]
    regressor = ayatori.Regressor(series="row", folds=2, epochs=2, preset="quick").fit(flat, flat.max(axis=1))
    assert regressor.predict(flat).shape == (40,)


@pytest.mark.parametrize("net", ["cnn", "gru", "transformer"])
def test_an_exported_model_says_of_series_what_the_run_says(
    net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    series, kinds = waves()
    series[3, :, 30:] = np.nan
    np.savez(tmp_path / "waves.npz", X=series, y=kinds)
    out = tmp_path / "run"
    words = ("run", str(tmp_path / "waves.npz"), "--series", "row", *QUICK, "--net", net, "--out", str(out))
    assert command(monkeypatch, *words) == 0
    capsys.readouterr()
    assert command(monkeypatch, "export", str(out), "--onnx", str(tmp_path / "m.onnx")) == 0
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    found = session.run(None, {"series": series})[0]
    expected = load_model(out).predict_values(load_like(series, load_model(out).schema))
    np.testing.assert_allclose(found, expected, atol=1e-4)


REFUSED = {
    "an unknown column": (("--series", "nobody"), "column 'nobody' must be in the table"),
    "a net for tables": (
        ("--series", "row", "--net", "mlp"),
        "net must be cnn, gru, lstm, transformer, linear",
    ),
    "views": (("--series", "row", "--tta", "3"), "`tta` looks at varied pictures"),
    "steps": (("--series", "row", "--series-steps", "2"), "`series_steps` must be between 4 and 65536"),
    "a transform": (
        ("--series", "row", "--augment", "kornia.augmentation:RandomHorizontalFlip"),
        "transform",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_go_with_series_is_refused_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    series, kinds = waves()
    wide_table(series, kinds).to_csv(tmp_path / "wide.csv", index=False)
    words, sentence = REFUSED[name]
    out = tmp_path / "run"
    assert (
        command(monkeypatch, "run", str(tmp_path / "wide.csv"), *words, "--no-look", "--out", str(out)) == 2
    )
    assert sentence in capsys.readouterr().err
    assert not (out / "DONE").exists()


def test_read_ts_keeps_every_value(tmp_path: Path) -> None:
    series, kinds = waves(6)
    measured = read_ts(ts_file(tmp_path / "waves.ts", series, kinds))
    np.testing.assert_allclose(np.stack(measured.series), series, rtol=1e-6)
    assert measured.beside["class"].to_pylist() == kinds
