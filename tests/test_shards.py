"""Parquet as Hugging Face writes it: pictures and recordings in columns, names of classes, pieces."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from helpers import command
from PIL import Image

from ayatori.archives import unpacked
from ayatori.data import load, load_like, read_blocks
from ayatori.records import AyatoriError
from ayatori.shards import shards_of

CLASSES = ("cat", "dog é")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "ayatori"


def pixels(number: int) -> np.ndarray:
    light = 180 if number % 2 else 60
    return np.random.default_rng(number).integers(light - 40, light + 40, (8, 8, 3)).astype(np.uint8)


def picture(number: int, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels(number)).save(content, kind)
    return content.getvalue()


def sound(number: int, kind: str = "WAV") -> bytes:
    content, times = io.BytesIO(), np.arange(4000) / 8000
    tone = np.sin(2 * np.pi * (300 + 900 * (number % 2) + number) * times)
    soundfile.write(content, tone / 2, 8000, format=kind)
    return content.getvalue()


def rows_of(numbers: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"image": {"bytes": picture(number), "path": "same name.png"}, "label": number % 2}
        for number in numbers
    ]


def write(
    path: Path, rows: list[dict[str, Any]], classes: Sequence[str] = CLASSES, of: str = "label"
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {of: {"_type": "ClassLabel", "names": list(classes)}}
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()} if classes else None
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(about), path)
    return path


def test_pictures_in_a_column_are_read_with_the_names_of_their_classes(tmp_path: Path) -> None:
    dataset = load(write(tmp_path / "pets.parquet", rows_of(range(60))))
    assert dataset.task == "classification"
    assert dataset.classes == CLASSES
    assert dataset.inputs["image"].shape == (60, 3, 8, 8)
    assert (dataset.inputs["image"] == np.stack([pixels(n).transpose(2, 0, 1) for n in range(60)])).all()
    assert [dataset.classes[label] for label in dataset.labels] == [CLASSES[n % 2] for n in range(60)]
    assert list(dataset.ids[:2]) == ["image/0000000.png", "image/0000001.png"]


def test_bytes_without_a_struct_and_without_names_of_classes_are_read_too(tmp_path: Path) -> None:
    rows = [{"image": picture(n, "JPEG" if n % 3 else "BMP"), "label": n % 2} for n in range(40)]
    dataset = load(write(tmp_path / "pets.pq", rows, ()))
    assert dataset.inputs["image"].shape == (40, 3, 8, 8)
    assert dataset.classes == ("0", "1")


def test_recordings_in_a_column_are_heard(tmp_path: Path) -> None:
    rows = [
        {
            "audio": {"bytes": sound(n, "FLAC" if n % 3 else "WAV"), "path": None},
            "tone": "high" if n % 2 else "low",
        }
        for n in range(30)
    ]
    dataset = load(write(tmp_path / "tones.parquet", rows, ()))
    assert dataset.classes == ("high", "low")
    assert dataset.schema.sound_hertz > 0


def test_columns_beside_the_pictures_stay(tmp_path: Path) -> None:
    from ayatori.recipe import DataRecipe

    rows = [{"age": float(n), **row} for n, row in enumerate(rows_of(range(40)))]
    dataset = load(write(tmp_path / "pets.parquet", rows), recipe=DataRecipe(beside=("age",)))
    assert dataset.inputs["image"].shape[0] == 40
    assert dataset.inputs["numbers"].reshape(-1).tolist() == [float(n) for n in range(40)]


def test_the_classes_of_a_table_of_texts_get_their_names(tmp_path: Path) -> None:
    words = (("bad", "awful"), ("good", "great"))
    rows = [{"text": f"the film was {words[n % 2][n % 3 % 2]}, scene {n}", "label": n % 2} for n in range(60)]
    assert load(write(tmp_path / "films.parquet", rows, ("neg", "pos"))).classes == ("neg", "pos")


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet"),
        ("train-00000-of-00002-0123abcd.parquet", "train-00001-of-00002-4567cdef.parquet"),
        ("part-00000-0a1b.snappy.parquet", "part-00001-0a1b.snappy.parquet"),
        ("0000.parquet", "0001.parquet"),
    ],
)
def test_the_pieces_of_a_table_are_one_table(tmp_path: Path, names: tuple[str, str]) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(80, 3)), columns=list("abc"))
    frame["kind"] = np.where(frame["a"] > 0, "yes", "no")
    folder = tmp_path / "data"
    folder.mkdir()
    frame[:50].to_parquet(folder / names[0])
    frame[50:].to_parquet(folder / names[1])
    for name in ("_SUCCESS", "README.md", ".crc"):
        (folder / name).write_text("")
    (tmp_path / "whole").mkdir()
    frame.to_parquet(tmp_path / "whole" / "table.parquet")
    read, whole = load(folder), load(tmp_path / "whole" / "table.parquet")
    assert (read.inputs["numbers"] == whole.inputs["numbers"]).all()
    assert (read.labels == whole.labels).all()


def test_of_several_tables_one_is_named_by_the_beginning_of_its_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "pets" / "data"
    write(data / "train-00000-of-00002.parquet", rows_of(range(30)))
    write(data / "train-00001-of-00002.parquet", rows_of(range(30, 60)))
    write(data / "test-00000-of-00001.parquet", rows_of(range(60, 80)))
    assert shards_of(data / "train") == sorted(data.glob("train*"))
    with pytest.raises(AyatoriError, match=r"holds 2; name the one to learn from, of .*test, .*train"):
        load(tmp_path / "pets")
    code = command(
        monkeypatch,
        *("run", "pets/data/train", "--test", "pets/data/test", "--out", "run", "--preset", "quick"),
        *("--epochs", "1", "--no-look", "--baselines", "none"),
    )
    said, wrong = capsys.readouterr()
    assert code == 0, wrong
    assert "20 of 80 rows are sealed" in said
    assert "unpacked from 'train'" in said
    assert command(monkeypatch, "predict", "run", "pets/data/test", "--out", "says.csv") == 0
    says = pd.read_csv("says.csv")
    assert list(says.columns) == ["id", *("label",), *(f"p_{name}" for name in CLASSES)]
    assert len(says) == 20


def test_rows_without_labels_are_predicted(tmp_path: Path) -> None:
    known = load(write(tmp_path / "train.parquet", rows_of(range(40))))
    unlabelled = [{**row, "label": -1} for row in rows_of(range(40, 60))]
    path = write(tmp_path / "test.parquet", unlabelled)
    assert pq.read_table(unpacked(path))["label"].null_count == 20
    assert len(load_like(path, known.schema)) == 20
    assert sum(len(block) for block in read_blocks(path, known.schema)) == 20


def test_what_changes_is_unpacked_anew_and_what_does_not_once(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "pets.parquet", rows_of(range(20)))
    first = unpacked(path)
    assert unpacked(path) == first
    os.utime(path, (1, 1))
    assert unpacked(path) != first
    assert len(list(cache.iterdir())) == 2


def test_a_column_whose_name_leads_elsewhere_does_not(tmp_path: Path, cache: Path) -> None:
    rows = [{"../../out/image": picture(n), "label": n % 2} for n in range(20)]
    load(write(tmp_path / "pets.parquet", rows))
    assert not list(tmp_path.rglob("out*"))
    assert len(list(cache.rglob("*.png"))) == 20


@pytest.mark.parametrize("make", ["plain", "numbers", "no rows", "no file"])
def test_a_plain_table_is_left_alone(tmp_path: Path, make: str) -> None:
    path = tmp_path / "table.parquet"
    values = {
        "plain": pa.table({"a": [1.0, 2.0], "kind": ["x", "y"]}),
        "numbers": pa.table({"shape": pa.array([b"\x01\x01\x00", b"\x01\x01\x01"]), "kind": ["x", "y"]}),
        "no rows": pa.table({"image": pa.array([], pa.binary()), "kind": pa.array([], pa.string())}),
        "no file": pa.table({"image": pa.array([None, None], pa.binary()), "kind": ["x", "y"]}),
    }
    pq.write_table(values[make], path)
    assert shards_of(path) == []
    assert unpacked(path) == path


def test_a_picture_that_is_missing_or_none_is_named(tmp_path: Path) -> None:
    rows = rows_of(range(40))
    rows[7]["image"]["bytes"], rows[9]["image"]["bytes"] = None, b"no picture"
    with pytest.raises(AyatoriError, match="image"):
        load(write(tmp_path / "pets.parquet", rows))


def test_pieces_that_do_not_fit_together_and_damaged_ones_are_refused(tmp_path: Path, cache: Path) -> None:
    data = tmp_path / "data"
    write(data / "train-00000-of-00002.parquet", rows_of(range(20)))
    write(data / "train-00001-of-00002.parquet", [{"image": picture(1), "kind": "x"}] * 20, ())
    with pytest.raises(AyatoriError, match="pieces must have the same columns"):
        load(data)
    whole = (data / "train-00000-of-00002.parquet").read_bytes()
    (data / "train-00001-of-00002.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AyatoriError, match="must be whole"):
        load(data)
    assert not list(cache.glob("*/*"))


def test_a_folder_of_no_pieces_means_what_it_meant(tmp_path: Path) -> None:
    for kind in ("a", "b"):
        for number in range(3):
            write(tmp_path / "series" / kind / f"walk {number}.parquet", [{"x": 1.0}], ())
    assert shards_of(tmp_path / "series") == []
    assert shards_of(tmp_path / "nothing") == []
    assert shards_of(Path("/")) == []


def test_what_datasets_saves_to_disk_is_read(tmp_path: Path) -> None:
    write(tmp_path / "pets.parquet", rows_of(range(50)))
    table = pq.read_table(tmp_path / "pets.parquet")
    folder = tmp_path / "saved" / "train"
    folder.mkdir(parents=True)
    for number, part in enumerate((table[:30], table[30:])):
        path = folder / f"data-0000{number}-of-00002.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(part, max_chunksize=7)
    for name in ("state.json", "dataset_info.json"):
        (folder / name).write_text("{}")
    saved, whole = load(folder), load(tmp_path / "pets.parquet")
    assert (saved.inputs["image"] == whole.inputs["image"]).all()
    assert (saved.labels == whole.labels).all()
    assert saved.classes == CLASSES
    assert len(load(folder / "data-00001-of-00002.arrow")) == 20


def test_a_feather_file_that_ends_like_arrow_is_left_alone(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(40.0), "kind": ["x", "y"] * 20})
    frame.to_feather(tmp_path / "table.arrow")
    assert shards_of(tmp_path / "table.arrow") == []
    assert len(load(tmp_path / "table.arrow")) == 40
