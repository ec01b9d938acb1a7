"""Scans are read the right way up, at one size of voxel, and are learned, predicted, served, exported."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from helpers import command
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from starlette.testclient import TestClient

import ayatori
from ayatori.augment import augment
from ayatori.data import load, load_like, read_blocks
from ayatori.data.paths import is_scan
from ayatori.data.scan_files import UnseenError, dicom_picture, read_scan
from ayatori.data.scans import alike_in_depth, flattened, see, window_of
from ayatori.evaluate.matrix import coarse_scans
from ayatori.explore.thumbs import visible
from ayatori.model_files import load_model
from ayatori.nets.network import NetSpec
from ayatori.nets.pictures import PictureFront, build_pictures
from ayatori.nets.seen import Pixels, sliced
from ayatori.recipe import DataRecipe, PlanRecipe
from ayatori.records import AyatoriError
from ayatori.serve import make_app
from ayatori.serve.files import read_files
from ayatori.serve.limits import Limits, RequestError, Upload

# slices to the head, rows to the back, columns to the left: what nibabel calls S, P and L
UP = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)


def write_nifti(
    path: Path, values: np.ndarray, axes: str = "LPS", spacing: tuple[float, ...] = (1, 1, 1)
) -> Path:
    """``values`` (d, h, w) the right way up, stored in another order of axes; ``spacing`` of d, h and w."""
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(values.transpose(2, 1, 0)), affine)
    path.parent.mkdir(parents=True, exist_ok=True)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(axes)
    )
    nibabel.save(image.as_reoriented(turn), path)
    return path


def write_slices(
    folder: Path,
    values: np.ndarray,
    spacing: tuple[float, float, float] = (3.0, 0.5, 0.5),
    patient: str = "",
    series: str = "",
    **more: Any,
) -> Path:
    """``values`` (d, h, w) as a DICOM file for each slice, in an order that names do not tell."""
    folder.mkdir(parents=True, exist_ok=True)
    series = series or generate_uid()
    for at, one in enumerate(values):
        head = _head(one.astype(np.int16), series, patient)
        head.PixelSpacing = [spacing[1], spacing[2]]
        head.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        head.ImagePositionPatient = [0, 0, at * spacing[0]]
        head.InstanceNumber = len(values) - at
        for name, value in more.items():
            setattr(head, name, value)
        head.save_as(folder / f"{(at * 7) % len(values):03d}.dcm", enforce_file_format=True)
    return folder


def _head(pixels: np.ndarray, series: str, patient: str) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    head = Dataset()
    head.file_meta = meta
    head.SOPClassUID, head.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    head.SeriesInstanceUID, head.PatientID, head.Modality = series, patient, "CT"
    head.Rows, head.Columns = pixels.shape
    head.SamplesPerPixel, head.PhotometricInterpretation = 1, "MONOCHROME2"
    head.BitsAllocated, head.BitsStored, head.HighBit, head.PixelRepresentation = 16, 16, 15, 1
    head.RescaleSlope, head.RescaleIntercept = 1, 0
    head.PixelData = pixels.tobytes()
    return head


def balls(folder: Path, rows: int = 12, side: int = 12) -> Path:
    """Scans with a large or a small ball in noise, brighter or darker as a whole: a folder for each."""
    chance = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(side) - side / 2] * 3, indexing="ij"))
    for name, radius in (("large", 0.35), ("small", 0.2)):
        for row in range(rows):
            middle = chance.uniform(-1, 1, (3, 1, 1, 1))
            ball = np.square(grid - middle).sum(0) < (radius * side) ** 2
            values = (ball + chance.normal(0, 0.1, ball.shape)) * 10 ** chance.uniform(0, 3)
            write_nifti(folder / name / f"{name} {row}.nii.gz", values.astype(np.float32))
    return folder


@pytest.mark.parametrize("axes", ["LPS", "RAS", "SPL", "AIR", "PLI"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".img", ".mgz"])
def test_a_scan_is_the_same_whatever_the_order_of_its_axes(tmp_path: Path, axes: str, ending: str) -> None:
    path = tmp_path / f"é 音{ending}"
    image = nibabel.load(write_nifti(tmp_path / "first.nii", UP, axes, (3, 2, 1)))
    kinds = {".mgz": nibabel.MGHImage, ".img": nibabel.Nifti1Pair}
    kind = kinds.get(ending, nibabel.Nifti1Image)
    nibabel.save(kind(np.asarray(image.dataobj), image.affine), path)
    scan = read_scan(str(path))
    assert np.array_equal(scan.values, UP)
    assert scan.spacing == (3, 2, 1)


def test_slices_of_dicom_are_put_in_order_by_where_they_lie(tmp_path: Path) -> None:
    scan = read_scan(str(write_slices(tmp_path / "scan", UP, RescaleSlope=2, RescaleIntercept=-1000)))
    assert np.array_equal(scan.values, 2 * UP - 1000)
    assert scan.spacing == (3.0, 0.5, 0.5)


def test_a_sagittal_series_is_turned_and_a_scout_beside_it_is_left_out(tmp_path: Path) -> None:
    # columns go to the back, rows to the feet, slices to the left
    write_slices(tmp_path, UP.transpose(2, 0, 1)[:, ::-1])
    for path in tmp_path.iterdir():
        head = pydicom.dcmread(path)
        head.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        head.ImagePositionPatient = [-float(head.ImagePositionPatient[2]), 0, 0]
        head.save_as(path)
    write_slices(tmp_path / "scout", UP[:1])
    shutil.move(tmp_path / "scout" / "000.dcm", tmp_path / "scout.dcm")
    scan = read_scan(str(tmp_path))
    # their normal points to the right, so they are counted from there
    assert np.array_equal(scan.values, UP[:, :, ::-1])
    assert scan.spacing == (0.5, 0.5, 3.0)


def test_of_several_moments_at_one_place_the_first_is_taken(tmp_path: Path) -> None:
    series = generate_uid()
    for moment in (1, 0):
        write_slices(tmp_path / str(moment), UP + 100 * moment, series=series)
        for path in (tmp_path / str(moment)).iterdir():
            head = pydicom.dcmread(path)
            head.InstanceNumber += 50 * moment
            head.save_as(tmp_path / f"{moment}{path.name}")
        shutil.rmtree(tmp_path / str(moment))
    assert np.array_equal(read_scan(str(tmp_path)).values, UP)


def test_many_frames_of_one_file_are_a_scan(tmp_path: Path) -> None:
    head = _head(UP[0].astype(np.int16), generate_uid(), "")
    head.NumberOfFrames, head.PixelData = len(UP), UP.astype(np.int16).tobytes()
    head.PixelSpacing, head.SliceThickness = [0.5, 0.25], 2
    head.save_as(tmp_path / "frames.dcm", enforce_file_format=True)
    scan = read_scan(str(tmp_path / "frames.dcm"))
    assert np.array_equal(scan.values, UP)
    assert scan.spacing == (2.0, 0.5, 0.25)
    for at in range(4):
        (tmp_path / "all" / "ab"[at % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "frames.dcm", tmp_path / "all" / "ab"[at % 2] / f"{at}.dcm")
    dataset = load(tmp_path / "all")
    assert (len(dataset), dataset.schema.kind) == (4, "scans")
    assert len(load_like(tmp_path / "all" / "a", dataset.schema)) == 2


@given(size=st.integers(1, 30), wanted=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_a_constant_stays_one_at_any_size(size: int, wanted: int) -> None:
    scan = np.full((size, size, size), 3, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ayatori.data.scans.read_scan", lambda file: ayatori.data.scan_files.Scan(scan))
        assert (see("x", (wanted, wanted, wanted), "0,6") == 128).all()


def test_what_becomes_fewer_is_averaged(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(0, 100, (8, 12, 16)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    found = see(str(tmp_path / "a.npy"), (4, 6, 8), "0,100")
    # triangles of twice the width, as antialiased bilinear interpolation has them
    weights = np.array([1, 3, 3, 1]) / 8
    expected = np.pad(values, 1, mode="edge")[4:8, 4:8, 4:8]
    assert found[2, 2, 2] == pytest.approx(
        255 / 100 * np.einsum("ijk,i,j,k", expected, *[weights] * 3), abs=0.6
    )


@pytest.mark.parametrize(("mode", "ending"), [("L", "tif"), ("I;16", "tiff"), ("F", "tif"), ("RGB", "TIFF")])
def test_pages_of_a_tiff_are_slices(tmp_path: Path, mode: str, ending: str) -> None:
    kinds = {"I;16": np.uint16, "F": np.float32}
    values = UP.astype(kinds.get(mode, np.uint8))
    for at in range(4):
        slices = np.stack([values + at] * 3, -1) if mode == "RGB" else values + at
        pages = [Image.fromarray(page) for page in slices.astype(values.dtype)]
        (tmp_path / "ab"[at % 2]).mkdir(exist_ok=True)
        pages[0].save(tmp_path / "ab"[at % 2] / f"{at}.{ending}", save_all=True, append_images=pages[1:])
    dataset = load(tmp_path)
    assert (dataset.schema.kind, dataset.schema.image) == ("scans", (4, 6, 6))
    assert np.array_equal(read_scan(str(tmp_path / "b" / f"1.{ending}")).values, UP + 1)
    pages[0].save(tmp_path / "preview.tif", save_all=True, append_images=[pages[0].resize((2, 2))])
    assert not is_scan(str(tmp_path / "preview.tif"))
    assert load_like(tmp_path / "b" / f"1.{ending}", dataset.schema).inputs["image"].shape == (1, 4, 6, 6)


def test_one_size_of_voxel_keeps_what_is_larger_larger(tmp_path: Path) -> None:
    near = np.ones((10, 10, 10), np.float32)
    fine = write_nifti(tmp_path / "a" / "fine.nii", np.ones((40, 40, 40), np.float32), spacing=(0.5,) * 3)
    coarse = write_nifti(tmp_path / "b" / "coarse.nii", near, spacing=(1, 1, 1))
    dataset = load(tmp_path, recipe=DataRecipe(scan_window="-1,1", scan_mm=1.0, size=20))
    shares = (dataset.inputs["image"] == 255).reshape(2, -1).mean(1)
    assert shares.tolist() == [1.0, 0.125]  # 20 mm and 10 mm of 20
    assert (dataset.schema.image, dataset.schema.scan_mm) == ((20, 20, 20), 1.0)
    assert np.array_equal(see(str(fine), (20, 20, 20), "-1,1", 1.0), dataset.inputs["image"][0])
    assert np.array_equal(see(str(coarse), (20, 20, 20), "-1,1", 1.0), dataset.inputs["image"][1])


def test_scans_of_one_scale_share_a_window_and_others_have_their_own(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for at in range(8):
        body = chance.normal(40, 30, (8, 8, 8)).clip(-1024, 3000)
        body[:2] = -1000
        write_nifti(tmp_path / "ct" / "ab"[at % 2] / f"{at}.nii", body.astype(np.float32))
        scaled = (body + 1100) * 10 ** chance.uniform(-1, 2)
        write_nifti(tmp_path / "mr" / "ab"[at % 2] / f"{at}.nii", scaled.astype(np.float32))
    hounsfield, own = load(tmp_path / "ct").schema, load(tmp_path / "mr").schema
    low, high = window_of(hounsfield.scan_window)
    assert low == -1000
    assert 80 < high < 200
    assert own.scan_window == "own"


def test_how_scans_are_read_is_decided_by_the_development_rows_alone(tmp_path: Path) -> None:
    train = balls(tmp_path / "train", rows=6)
    for at in range(4):
        bright = np.full((30, 30, 30), 1e6, np.float32)
        write_nifti(tmp_path / "test" / ("large", "small")[at % 2] / f"{at}.nii", bright, spacing=(9, 9, 9))
    alone, both = load(train), load(train, test=tmp_path / "test")
    assert both.schema == alone.schema
    assert np.array_equal(both.inputs["image"][:12], alone.inputs["image"])


def test_folders_of_slices_are_scans_and_slices_in_the_folder_of_a_class_are_pictures(tmp_path: Path) -> None:
    for at in range(4):
        one = write_slices(tmp_path / "scans" / "ab"[at % 2] / f"p{at}", UP + at, patient=f"p{at}")
        for path in list(one.iterdir())[:2]:
            (tmp_path / "flat" / "ab"[at % 2]).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "flat" / "ab"[at % 2] / f"{at}{path.name}")
    scans, flat = load(tmp_path / "scans"), load(tmp_path / "flat")
    assert (scans.schema.kind, scans.ids.tolist()) == ("scans", ["a/p0", "a/p2", "b/p1", "b/p3"])
    assert (flat.schema.kind, len(flat), flat.schema.image[0]) == ("pictures", 8, 1)  # type: ignore[index]
    of_one_series = tmp_path / "scans" / "a" / "p2"
    slices = load_like(of_one_series, flat.schema)
    assert (len(slices), slices.inputs["image"].shape[1]) == (4, 1)
    one = load_like(of_one_series, scans.schema)
    assert one.ids.tolist() == ["p2"]
    assert np.array_equal(one.inputs["image"][0], scans.inputs["image"][1])


def test_dicom_without_an_ending_is_known_by_how_it_begins(tmp_path: Path) -> None:
    for at in range(4):
        for path in write_slices(tmp_path / "ab"[at % 2] / f"p{at}", UP).iterdir():
            path.rename(path.with_name(f"1.2.840.{path.stem}"))
    dataset = load(tmp_path)
    assert (len(dataset), dataset.schema.kind) == (4, "scans")


def test_a_flat_dicom_is_shown_as_its_header_wants(tmp_path: Path) -> None:
    values = np.arange(16, dtype=np.float32).reshape(1, 4, 4) * 100
    shown = {
        "plain": {},
        "windowed": {"WindowCenter": 700, "WindowWidth": 600},
        "inverse": {"PhotometricInterpretation": "MONOCHROME1"},
    }
    for name, more in shown.items():
        for label in ("a", "b"):
            write_slices(tmp_path / label / name, values, **more)
            shutil.move(tmp_path / label / name / "000.dcm", tmp_path / label / f"{name}.dcm")
            os.rmdir(tmp_path / label / name)
    dataset = load(tmp_path, recipe=DataRecipe(size=4))
    pictures = dict(
        zip((name[2:-4] for name in dataset.ids[:3]), dataset.inputs["image"][:3, 0], strict=True)
    )
    assert np.array_equal(pictures["plain"].ravel(), np.arange(16) * 17)
    assert np.array_equal(pictures["inverse"], 255 - pictures["plain"])
    assert np.array_equal(pictures["windowed"].ravel()[4:11], np.rint(np.arange(7) * 42.5))
    assert (pictures["windowed"].ravel()[:5] == 0).all()
    assert (pictures["windowed"].ravel()[10:] == 255).all()


def test_a_flat_dicom_with_a_table_of_its_own_is_shown_by_it(tmp_path: Path) -> None:
    head = _head(np.arange(16, dtype=np.int16).reshape(4, 4), generate_uid(), "")
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [16, 0, 16])
    table.add_new("LUTData", "US", [0] * 8 + [1000 * step for step in range(8)])
    head.VOILUTSequence = [table]
    head.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    shown = np.asarray(dicom_picture(str(tmp_path / "a.dcm"))).ravel()
    assert np.array_equal(shown, np.rint(np.maximum(np.arange(16) - 8, 0) * 255 / 7))


def test_scans_of_one_patient_stay_together_as_their_headers_say(tmp_path: Path) -> None:
    for at in range(24):
        write_slices(tmp_path / "ab"[at % 2] / f"{at:02}", UP + at, patient=f"P{at // 2}")
    dataset = load(tmp_path)
    assert "scans are of 12 patients, as their headers say; those of one stay together" in dataset.notes
    for at in (*range(6, 12), *range(14, 24)):
        shutil.rmtree(tmp_path / "ab"[at % 2] / f"{at:02}")
    few = load(tmp_path)
    assert few.groups is None
    assert any("of 4 patients, as their headers say; these are too few to keep apart" in n for n in few.notes)
    plan = ayatori.make_plan(dataset, PlanRecipe())
    for member in range(plan.members):
        learned = set(dataset.groups[plan.train_rows(member)])  # type: ignore[index]
        judged = set(dataset.groups[plan.rows(member, 252)])  # type: ignore[index]
        assert not learned & judged


def test_patients_of_a_given_test_that_are_known_are_named(tmp_path: Path) -> None:
    for at in range(24):
        write_slices(tmp_path / "train" / "ab"[at % 2] / f"{at:02}", UP + at, patient=f"P{at // 2}")
    for at in range(4):
        write_slices(tmp_path / "test" / "ab"[at % 2] / f"{at:02}", UP - at - 1, patient=f"P{10 + at}")
    dataset = load(tmp_path)
    told = "2 of 4 rows of the test are of patients that others are of, too: their score is too good"
    assert any(told in note for note in dataset.notes)
    assert ayatori.make_plan(dataset, PlanRecipe(folds=3)).sealed.sum() == 4


def test_a_table_may_name_scans_by_file_or_by_folder(tmp_path: Path) -> None:
    balls(tmp_path / "files", rows=3)
    names = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*.nii.gz"))]
    frame = pd.DataFrame({"scan": names, "size": np.linspace(0, 1, 6)})
    frame.to_csv(tmp_path / "files.csv", index=False)
    by_file = load(tmp_path / "files.csv", target="size")
    assert (by_file.task, by_file.schema.kind, len(by_file)) == ("regression", "scans", 6)
    for at in range(4):
        write_slices(tmp_path / "studies" / f"{at:05}", UP + at)
    table = pd.DataFrame({"study": [f"{at:05}" for at in range(4)], "grade": ["x", "y"] * 2})
    table.to_csv(tmp_path / "studies" / "labels.csv", index=False)
    by_folder = load(tmp_path / "studies" / "labels.csv", target="grade")
    assert (by_folder.schema.kind, by_folder.ids.tolist()) == ("scans", [f"{at:05}" for at in range(4)])


def test_a_table_of_people_may_name_the_folder_that_holds_a_scan_of_each(tmp_path: Path) -> None:
    for at in range(6):
        folder = tmp_path / f"sub-{at:02}" / "anat"
        write_nifti(folder / f"sub-{at:02}_T1w.nii.gz", UP + at)
        (folder / f"sub-{at:02}_T1w.json").write_text("{}")
    people = {"participant_id": [f"sub-{at:02}" for at in range(6)], "age": range(6), "group": ["a", "b"] * 3}
    pd.DataFrame(people).to_csv(tmp_path / "participants.tsv", index=False, sep="\t")
    recipe = DataRecipe(target="group", pictures=str(tmp_path))
    dataset = load(tmp_path / "participants.tsv", recipe=recipe)
    assert (dataset.schema.kind, dataset.ids.tolist()) == ("scans", people["participant_id"])
    asked = load(tmp_path / "participants.tsv", target="group")
    assert any(
        "column 'participant_id' names files; to learn from them: --pictures" in n for n in asked.notes
    )
    write_nifti(tmp_path / "sub-03" / "anat" / "sub-03_T2w.nii.gz", UP)  # which of the two is meant?
    with pytest.raises(AyatoriError, match="it holds neither slices nor a single scan"):
        load(tmp_path / "participants.tsv", recipe=dataclasses.replace(recipe, strict=True))


def test_broken_scans_are_named_and_skipped_or_refused(tmp_path: Path) -> None:
    folder = balls(tmp_path, rows=3)
    whole = (folder / "large" / "large 0.nii.gz").read_bytes()
    made = {
        "empty.nii": b"",
        "text.nii": b"hello",
        "cut.nii.gz": whole[: len(whole) // 2],
        "zip.nii.gz": gzip.compress(b"no scan" * 100),
        "magic.dcm": bytes(128) + b"DICM" + b"nothing",
        "pickled.npy": b"\x93NUMPY",
    }
    for name, content in made.items():
        (folder / "small" / name).write_bytes(content)
    write_nifti(folder / "small" / "none.nii", np.full((4, 4, 4), np.nan, np.float32))
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4, 3)), np.eye(4)), folder / "small" / "four.nii")
    dataset = load(folder)
    assert len(dataset) == 6
    (said,) = [note for note in dataset.notes if "broken" in note]
    assert said.startswith("7 broken scans are skipped")
    assert (
        "left out: pictures among scans, 1 of 14 files" in dataset.notes
    )  # a file of DICOM is by itself one
    assert "four.nii' (it holds 3 scans, however one is wanted; write each to a file)" in said
    assert "empty.nii' (empty file)" in said
    with pytest.raises(AyatoriError, match="every scan must be readable, however 7 of them"):
        load(folder, recipe=DataRecipe(strict=True))


def test_arrays_beside_pictures_are_no_scans_and_previews_beside_scans_no_pictures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for at in range(3):
            (tmp_path / "masks" / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 20 * at).save(tmp_path / "masks" / name / f"{at}.png")
            np.save(tmp_path / "masks" / name / f"{at}.npy", np.zeros((8, 8)))
            write_nifti(tmp_path / "scans" / name / f"{at}.nii", UP + at)
        Image.new("L", (8, 8)).save(tmp_path / "scans" / name / "0.png")
    masks, scans = load(tmp_path / "masks"), load(tmp_path / "scans")
    assert (masks.schema.kind, len(masks)) == ("pictures", 6)
    assert "left out: scans among pictures, 6 of 12 files" in masks.notes
    assert (scans.schema.kind, len(scans)) == ("scans", 6)
    assert "left out: pictures among scans, 2 of 8 files" in scans.notes


def test_what_a_scan_lacks_is_its_darkest(tmp_path: Path) -> None:
    values = UP.copy()
    values[0, 0, 0], values[1, 1, 1] = np.nan, np.inf
    found = read_scan(str(write_nifti(tmp_path / "a.nii", values))).values
    assert (found[0, 0, 0], found[1, 1, 1]) == (1, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scan_mm": -1.0}, "scan_mm must be between"),
        ({"scan_window": "5,1"}, "scan_window must be own, or LOW,HIGH"),
        ({"scan_window": "lung"}, "scan_window must be own, or LOW,HIGH"),
        ({"size": 2}, "size must be between"),
        ({"sound_seconds": 1.0}, "for recordings, however these are scans"),
        ({"series_steps": 5}, "series_steps is for series"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(AyatoriError, match=words):
        load(balls(tmp_path, rows=2), recipe=DataRecipe(**options))


def test_settings_of_scans_are_refused_for_pictures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "x.png")
    with pytest.raises(AyatoriError, match="for scans, however these are pictures"):
        load(tmp_path, recipe=DataRecipe(scan_mm=1.0))


def test_a_size_of_voxels_must_be_known_to_be_asked_for(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", UP)
    with pytest.raises(AyatoriError, match="scan_mm needs the size of voxels"):
        load(tmp_path, recipe=DataRecipe(scan_mm=1.0))
    assert load(tmp_path).schema.scan_mm == 0
    fine = write_nifti(tmp_path / "fine.nii", UP, spacing=(100, 100, 100))
    with pytest.raises(UnseenError, match=r"at 0\.01 mm its size is 40000 x 50000 x 60000"):
        see(str(fine), (4, 4, 4), "own", 0.01)
    with pytest.raises(UnseenError, match="does not tell the size of its voxels"):
        see(str(tmp_path / "a" / "x.npy"), (4, 4, 4), "own", 1.0)


@pytest.mark.parametrize("shape", [(20, 16, 17, 18), (20, 1, 11, 10, 5), (20, 11, 10, 9, 1)])
def test_arrays_with_three_sides_are_scans(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    dataset = load(values, y=["a", "b"] * 10)
    sides = [size for size in shape[1:] if size > 1]
    assert dataset.schema.slices
    assert np.array_equal(dataset.inputs["image"], values.reshape(20, *sides))
    assert np.array_equal(
        load_like(values[:3], dataset.schema).inputs["image"], values[:3].reshape(3, *sides)
    )
    blocks = list(read_blocks(values, dataset.schema))
    assert np.array_equal(
        np.concatenate([block.inputs["image"] for block in blocks]), dataset.inputs["image"]
    )
    with pytest.raises(AyatoriError, match="scans must have one channel"):
        load(np.zeros((20, 2, 9, 9, 9)), y=["a", "b"] * 10)


def test_files_of_medmnist_bring_their_own_test(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    parts = {"train": 20, "val": 5, "test": 6}
    arrays = {
        f"{part}_images": chance.integers(0, 256, (rows, 16, 16, 16)).astype(np.uint8)
        for part, rows in parts.items()
    }
    labels = {f"{part}_labels": np.arange(rows)[:, None] % 2 for part, rows in parts.items()}
    np.savez(tmp_path / "organ.npz", **arrays, **labels)
    dataset = load(tmp_path / "organ.npz")
    assert (len(dataset), int(dataset.fixed_test.sum())) == (31, 6)  # type: ignore[union-attr]
    assert np.array_equal(dataset.inputs["image"][20:25], arrays["val_images"])
    x, y = arrays["train_images"].reshape(20, -1)[:, :5], labels["train_labels"].ravel()
    np.savez(tmp_path / "keras.npz", x_train=x, y_train=y, x_test=x[:7], y_test=y[:7])
    assert int(load(tmp_path / "keras.npz").fixed_test.sum()) == 7  # type: ignore[union-attr]


def test_the_front_has_one_scale_for_all_slices() -> None:
    scans = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3)).astype(np.uint8)
    front = PictureFront({"image": [5, 4, 3], "slices": True})
    front.fit({"image": scans})
    assert front.mean.item() == pytest.approx(scans.mean())
    assert front.std.item() == pytest.approx(scans.std())
    found = front({"image": torch.from_numpy(scans)})
    np.testing.assert_allclose(found, (scans - scans.mean()) / scans.std(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(28, 28, 28), (48, 64, 64), (1, 8, 8), (5, 40, 40), (9, 8, 7)])
@pytest.mark.parametrize("name", ["cnn", "linear"])
def test_networks_take_scans_of_any_shape(shape: tuple[int, int, int], name: str) -> None:
    front, body = build_pictures(NetSpec(name, "classification", 3, {"image": list(shape), "slices": True}))
    found = body.eval()(front({"image": torch.zeros(2, *shape, dtype=torch.uint8)}))
    assert found.shape == (2, 3)


@pytest.mark.parametrize("options", [{"name": "mlp"}, {"options": {"width": -1}}, {"options": {"height": 1}}])
def test_networks_of_scans_refuse_what_they_do_not_know(options: dict[str, Any]) -> None:
    spec = {"name": "cnn", "options": {}} | options
    with pytest.raises(AyatoriError):
        build_pictures(
            NetSpec(
                spec["name"], "classification", 3, {"image": [8, 8, 8], "slices": True}, "", spec["options"]
            )
        )


def small_network(shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    assert shape == (1, 12, 12, 12)
    layers = (torch.nn.Conv3d(1, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten())
    return torch.nn.Sequential(*layers, torch.nn.Linear(4, outputs))


def test_a_network_of_one_s_own_gets_scans_of_one_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, own = balls(tmp_path / "balls", rows=8), ("--net", "test_scans:small_network")
    words = ("--folds", "2", "--epochs", "1", "--no-look", "--baselines", "none", "--out", tmp_path / "run")
    assert not command(monkeypatch, "run", folder, *own, *words)
    assert not command(monkeypatch, "predict", tmp_path / "run", folder, *own, "-o", tmp_path / "a.csv")
    assert len(pd.read_csv(tmp_path / "a.csv")) == 16


def test_a_network_for_pictures_sees_slabs_and_says_their_mean_and_maximum() -> None:
    scans = torch.randint(0, 256, (3, 20, 8, 8)).float()
    part = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5))
    front, parts = sliced(Pixels([1, 8, 8], [100.0], [50.0], "bilinear"), [part], 4)
    slabs = scans.unflatten(1, (4, 5)).mean(2)
    said = torch.stack([part((slabs[:, at, None] - 100) / 50) for at in range(4)], 1)
    expected = torch.cat([said.mean(1), said.amax(1)], 1)
    torch.testing.assert_close(parts[0](front({"image": scans})), expected)


def test_an_augmentation_moves_scans_across_their_slices_too() -> None:
    scans = torch.zeros(200, 24, 8, 8, dtype=torch.uint8)
    scans[:, 12, 4, 4] = 255
    moved = augment("light", deep=True)({"image": scans}, torch.Generator().manual_seed(0))["image"]
    places = moved.flatten(2).amax(2).argmax(1)
    assert set(places.tolist()) == {10, 11, 12, 13, 14}
    flat = augment("light")({"image": scans}, torch.Generator().manual_seed(0))["image"]
    assert set(flat.flatten(2).amax(2).argmax(1).tolist()) == {12}


def test_scans_are_shown_by_some_of_their_slices() -> None:
    scans = np.repeat(np.arange(40, dtype=np.uint8), 4).reshape(2, 20, 2, 2)
    (tiles,) = visible(scans, np.array([1]))
    assert tiles.shape == (1, 4, 4)
    assert tiles[0, ::2, ::2].ravel().tolist() == [22, 27, 32, 37]
    assert np.array_equal(visible(scans[:, :3], np.array([0])), scans[:1, :3])


def test_rivals_see_coarse_cells_and_how_bright_a_scan_is() -> None:
    scans = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 8)).astype(np.uint8)
    found = coarse_scans(scans)
    cells = scans.reshape(2, 8, 2, 8, 3, 8, 1).mean(axis=(2, 4, 6)) / 255
    np.testing.assert_allclose(found[:, :512], cells.reshape(2, -1), rtol=1e-5)
    np.testing.assert_allclose(
        found[1, 512:], np.histogram(scans[1], 16, (0, 256))[0] / scans[1].size, rtol=1e-5
    )


def test_copies_of_scans_are_sought_in_slabs() -> None:
    chance = np.random.default_rng(0)
    values = chance.integers(30, 220, (30, 10, 16, 16)).astype(np.uint8)
    dataset = load(values[:, None], y=["a", "b"] * 15)
    flat = flattened(dataset)
    again = np.concatenate(
        [values, (values[:3] * 0.8 + chance.normal(0, 5, values[:3].shape)).astype(np.uint8)]
    )
    pairs = np.array([[0, 30], [1, 31], [2, 32], [0, 31], [4, 5]])
    assert alike_in_depth(again, pairs).tolist() == [True, True, True, False, False]
    assert flat.shape == (30, 4, 16, 16)
    np.testing.assert_allclose(flat[3, 1], values[3, 2:5].mean(0), atol=1)


def test_a_run_on_scans_goes_from_the_folder_to_a_page_a_server_and_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = balls(tmp_path / "balls", rows=24), tmp_path / "run"
    assert not command(monkeypatch, "run", folder, "--folds", "2", "--epochs", "6", "--out", run)
    said = capsys.readouterr().out
    assert (
        "scans of 12 x 12 x 12 voxels are read at 12 x 12 x 12, 1 mm each, each from its own darkest" in said
    )
    page = (run / "report.html").read_text()
    assert "scans 12 × 12 × 12" in page
    assert "How scans vary" in page
    result = pd.read_json(run / "result.json", typ="series")
    assert result["chosen"]

    one = folder / "large" / "large 3.nii.gz"
    assert not command(monkeypatch, "predict", run, one, "-o", tmp_path / "one.csv")
    assert not command(monkeypatch, "predict", run, folder, "-o", tmp_path / "all.csv")
    alone, everything = pd.read_csv(tmp_path / "one.csv"), pd.read_csv(tmp_path / "all.csv").set_index("id")
    assert alone["p_large"][0] == pytest.approx(everything["p_large"]["large/large 3.nii.gz"], abs=1e-6)

    with TestClient(make_app(load_model(run), max_rows=10, max_bytes=10**7), "http://127.0.0.1") as client:
        content = one.read_bytes()
        asked = [
            client.post("/predict", content=content, headers={"content-type": "application/gzip"}),
            client.post("/predict", json={"scans": [base64.b64encode(content).decode()]}),
            client.post("/predict", files={"file": ("a.nii.gz", content)}),
        ]
        for answer in asked:
            (row,) = answer.json()["rows"]
            assert row["probabilities"]["large"] == pytest.approx(alone["p_large"][0], abs=1e-5)
        values = nibabel.load(one).get_fdata(dtype=np.float32)[::-1, ::-1].transpose(2, 1, 0)
        np.save(tmp_path / "plain.npy", values)
        plain = {"file": ("plain.npy", (tmp_path / "plain.npy").read_bytes())}
        assert "does not tell the size of its voxels" in client.post("/predict", files=plain).json()["error"]
        slices = sorted(write_slices(tmp_path / "new", UP).iterdir())
        together = client.post("/predict", files=[("file", (p.name, p.read_bytes())) for p in slices]).json()
        assert len(together["rows"]) == 1
        refused = client.post("/predict", files={"file": ("a.nii.gz", b"no scan")})
        assert refused.status_code == 422
        assert "'a.nii.gz' must be a scan, however" in refused.json()["error"]
        assert "Scans are NIfTI, or DICOM" in client.get("/openapi.json").text

    assert not command(monkeypatch, "export", run, "--onnx", tmp_path / "a.onnx")
    assert "agrees to" in capsys.readouterr().out


@pytest.mark.parametrize("ending", [".npy", ".tif", ".nii", ".nii.gz", ".mgz"])
def test_uploads_of_every_kind_are_read_as_files_are(tmp_path: Path, ending: str) -> None:
    for at in range(4):
        path = tmp_path / "ab"[at % 2] / f"{at}{ending}"
        path.parent.mkdir(exist_ok=True)
        if ending == ".npy":
            np.save(path, UP + at)
        elif ending == ".tif":
            pages = [Image.fromarray(page) for page in UP + at]
            pages[0].save(path, save_all=True, append_images=pages[1:])
        else:
            kind = nibabel.MGHImage if ending == ".mgz" else nibabel.Nifti1Image
            nibabel.save(kind(UP + at, np.eye(4)), path)
    dataset = load(tmp_path)
    upload = Upload(f"of mine{ending}", path.read_bytes())
    found = read_files([upload, upload], dataset.schema, Limits(rows=2, bytes=10**6))
    assert np.array_equal(found.inputs["image"], dataset.inputs["image"][[3, 3]])
    with pytest.raises(RequestError, match="at most 1 rows"):
        read_files([upload, upload], dataset.schema, Limits(rows=1, bytes=10**6))


def test_a_run_of_scans_can_be_built_upon_and_a_picture_network_looks_at_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = balls(tmp_path / "first", rows=24), tmp_path / "second"
    for at, path in enumerate(sorted(balls(tmp_path / "other", rows=16, side=14).rglob("*.nii.gz"))):
        target = second / ("c" if "large" in path.name else "d") / f"{at}.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    quick = ("--folds", "2", "--epochs", "3", "--no-look", "--no-advise")
    assert not command(monkeypatch, "run", first, *quick, "--out", tmp_path / "a")
    for finetune in ("none", "all"):
        built = tmp_path / f"b {finetune}"
        words = ("--pretrained", tmp_path / "a", "--finetune", finetune)
        assert not command(monkeypatch, "run", second, *quick, *words, "--out", built)
    seen = tmp_path / "c"
    assert not command(
        monkeypatch,
        "run",
        second,
        *quick,
        "--pretrained",
        "efficientnet_lite0",
        "--size",
        "14",
        "--out",
        seen,
    )
    model = load_model(seen)
    assert model.schema.source["facts"]["slices"] == 16  # type: ignore[index]
    assert not command(monkeypatch, "predict", seen, second, "-o", tmp_path / "seen.csv")
    assert len(pd.read_csv(tmp_path / "seen.csv")) == 32


def test_without_its_packages_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = balls(tmp_path / "balls", rows=3)
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    assert command(monkeypatch, "run", folder, "--out", tmp_path / "run") == 2
    assert "scans need the package nibabel" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
