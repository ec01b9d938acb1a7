"""Where headers alone tell the target, the look says so; where they do not, it is silent."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import command
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_scans import write_slices

from ayatori.data import load
from ayatori.data.made import made
from ayatori.explore.making import making
from ayatori.records import Dataset


def photographs(folder: Path, qualities: dict[str, tuple[int, ...]], rows: int = 30) -> Path:
    """Pictures of noise, saved as coarsely as one of the numbers of their class says."""
    chance = np.random.default_rng(0)
    for name, own in qualities.items():
        (folder / name).mkdir(parents=True)
        for row in range(rows):
            pixels = chance.integers(0, 256, (12, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{row}.jpg", quality=own[row % len(own)])
    return folder


def everyone(dataset: Dataset) -> np.ndarray:
    return np.arange(len(dataset))


def test_classes_saved_by_two_programs_are_told_apart_by_it(tmp_path: Path) -> None:
    dataset = load(photographs(tmp_path, {"ill": (90,), "well": (75,)}))
    found = making(dataset, everyone(dataset))
    assert found is not None
    assert (found["score"], found["chance"], found["traits"]) == (1.0, 0.5, ["coarseness of the JPEG"])
    assert found["sentence"].startswith(
        "how pictures were made tells the target (100 % right, chance 50 %, by coarseness of the JPEG alone)"
    )


def test_classes_saved_by_the_same_programs_are_not(tmp_path: Path) -> None:
    dataset = load(photographs(tmp_path, {"ill": (90, 75, 60), "well": (90, 75, 60)}))
    assert dataset.made["coarseness of the JPEG"].nunique() == 3
    assert making(dataset, everyone(dataset)) is None


@given(seed=st.integers(0, 10_000), traits=st.integers(1, 6), classes=st.integers(2, 4))
@settings(max_examples=25, deadline=None)
def test_headers_that_have_nothing_to_do_with_labels_raise_no_alarm(
    seed: int, traits: int, classes: int
) -> None:
    chance = np.random.default_rng(seed)
    dataset = load(np.zeros((80, 2)), y=[f"c{code}" for code in chance.permutation(np.arange(80) % classes)])
    table = pd.DataFrame({f"t{at}": chance.integers(0, 3 + at, 80) for at in range(traits)})
    found = making(dataclasses.replace(dataset, made=table), everyone(dataset))
    assert found is None or found["score"] < 0.75  # three standard errors are passed once in a thousand times


def test_what_a_patient_s_machine_tells_counts_once_for_all_scans_of_the_patient(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    who = np.repeat(np.arange(8), 20)
    table = pd.DataFrame({"machine": chance.normal(size=8)[who]})
    dataset = load(np.zeros((160, 2)), y=[f"c{code}" for code in who % 2])
    grouped = dataclasses.replace(dataset, made=table, groups=who)
    assert making(dataclasses.replace(dataset, made=table), everyone(dataset)) is not None
    assert making(grouped, everyone(dataset)) is None


def test_labels_of_sealed_rows_are_never_asked_for(tmp_path: Path) -> None:
    dataset = load(photographs(tmp_path, {"ill": (90,), "well": (75,)}))
    open_ = np.sort(np.random.default_rng(0).permutation(60)[:48])
    other = dataset.labels.copy()
    other[np.setdiff1d(everyone(dataset), open_)] = 0
    changed = dataclasses.replace(dataset, target=other)
    assert making(changed, open_) == making(dataset, open_)


def test_numbers_too_may_follow_from_how_files_were_made() -> None:
    chance = np.random.default_rng(0)
    dataset = load(np.zeros((100, 2)), y=np.arange(100.0))
    told = pd.DataFrame({"width": 10 + np.arange(100) // 5, "maker": chance.choice(["a", "b"], 100)})
    found = making(dataclasses.replace(dataset, made=told), everyone(dataset))
    assert found is not None
    assert found["traits"] == ["width"]
    assert "(R2 1.00, by width alone)" in found["sentence"]


def test_traits_are_read_from_headers_of_every_kind(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Nikon"
    Image.new("RGB", (7, 5)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    pictures = made([str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")])
    assert pictures is not None
    assert pictures.iloc[0][["width", "height", "format", "camera"]].tolist() == [7, 5, "JPEG", "Nikon"]
    assert pictures.iloc[1].isna().all()
    soundfile.write(tmp_path / "a.flac", np.zeros((100, 2)), 22_050)
    sounds = made([str(tmp_path / "a.flac")])
    assert sounds is not None
    assert sounds.iloc[0].tolist() == [22_050, 2, "FLAC", "PCM_16"]
    scan = write_slices(tmp_path / "scan", np.zeros((3, 4, 5)), Manufacturer="ACME", KVP=120)
    scans = made([str(scan)])
    assert scans is not None
    assert scans.iloc[0][["slices", "rows", "columns", "maker", "kilovolts"]].tolist() == [
        3,
        4,
        5,
        "ACME",
        120,
    ]
    assert made([str(tmp_path / "a.csv")]) is None


@pytest.mark.parametrize("look", ["explore", "run"])
def test_the_look_and_its_page_say_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], look: str
) -> None:
    folder = photographs(tmp_path / "two sources", {"ill": (90,), "well": (75,)}, rows=40)
    more = () if look == "explore" else ("--epochs", "1", "--folds", "2", "--baselines", "none")
    assert not command(monkeypatch, look, folder, *more, "--out", tmp_path / "out")
    assert "how pictures were made tells the target" in " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "out" / ("explore.html" if look == "explore" else "report.html")).read_text()
    assert "How pictures were made tells the target (100 % right, chance 50 %" in page
    if look == "run":
        said = json.loads((tmp_path / "out" / "report.json").read_text())["answer"]
        assert "Careful: how pictures were made tells the target" in said["text"]
        assert said["next"].startswith("See whether new pictures will be made as these were")
