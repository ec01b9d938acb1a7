"""Pictures of any size and mode become one uint8 array, by what the development rows ask for."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.Image import Image as Picture
from sklearn.datasets import load_digits, load_sample_images

from ayatori.data import load, load_like
from ayatori.data.pictures import read_pictures
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError, SchemaError


def photo(width: int = 40, height: int = 30, shift: int = 0) -> Picture:
    pixels = load_sample_images().images[0][shift : shift + 300, 100:500]
    return Image.fromarray(pixels).resize((width, height))


def folder_of(
    path: Path, rows: int = 6, side: int = 8, classes: tuple[str, ...] = ("eight", "three")
) -> Path:
    """Digits as grey PNG files, one folder per class."""
    digits = load_digits()
    for name, digit in zip(classes, (8, 3), strict=True):
        (path / name).mkdir(parents=True, exist_ok=True)
        pixels_of = digits.images[digits.target == digit]
        for row in range(rows):
            pixels = pixels_of[row % len(pixels_of)]
            Image.fromarray((pixels * 15).astype(np.uint8)).resize((side, side)).save(
                path / name / f"{row}.png"
            )
    return path


def png_header(width: int, height: int, path: Path) -> Path:
    """A PNG file that claims a size and holds nearly nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def read_one(path: Path, side: int, colour: str = "rgb") -> np.ndarray:
    recipe = DataRecipe(size=side, colour=colour)  # type: ignore[arg-type]
    return read_pictures([str(path)], [path.name], recipe, 1).image[0]


def test_a_folder_of_classes_becomes_pixels_as_they_are(tmp_path: Path) -> None:
    folder_of(tmp_path)
    dataset = load(tmp_path)
    assert (dataset.task, dataset.classes) == ("classification", ("eight", "three"))
    assert dataset.schema.image == (1, 8, 8)
    assert dataset.ids[0] == "eight/0.png"
    assert dataset.labels.tolist() == [0] * 6 + [1] * 6
    digits = load_digits()
    wanted = np.concatenate([digits.images[digits.target == digit][:6] for digit in (8, 3)]) * 15
    np.testing.assert_array_equal(dataset.inputs["image"][:, 0], wanted.astype(np.uint8))
    assert load(tmp_path).fingerprint == dataset.fingerprint


def test_classes_with_numbers_for_names_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    folder_of(tmp_path, classes=("10", "9"))
    assert load(tmp_path).classes == ("9", "10")


def _modes() -> dict[str, Picture]:
    base = photo(32, 32)
    grey16 = Image.fromarray(np.asarray(base.convert("L")).astype(np.uint16) * 257)
    clear = base.convert("RGBA")
    clear.putalpha(Image.fromarray(np.where(np.arange(32) < 16, 0, 255).astype(np.uint8)[None].repeat(32, 0)))
    return {
        "L.png": base.convert("L"),
        "one.png": base.convert("1"),
        "LA.png": base.convert("LA"),
        "P.png": base.convert("P", palette=Image.Palette.ADAPTIVE),
        "RGBA.png": clear,
        "sixteen.png": grey16,
        "sixteen.tif": grey16,
        "float.tif": Image.fromarray(np.asarray(base.convert("L"), dtype=np.float32) / 255),
        "integer.tif": Image.fromarray(np.asarray(base.convert("L"), dtype=np.int32)),
        "CMYK.jpg": base.convert("CMYK"),
        "YCbCr.jpg": base,
        "L.jpg": base.convert("L"),
        "rgb.webp": base,
        "rgb.bmp": base,
        "rgb.ppm": base,
    }


@pytest.mark.parametrize("name", list(_modes()))
def test_every_mode_is_read_like_its_colours(tmp_path: Path, name: str) -> None:
    _modes()[name].save(tmp_path / name)
    rgb, grey = read_one(tmp_path / name, 32), read_one(tmp_path / name, 32, "grey")
    assert rgb.shape == (3, 32, 32)
    assert grey.shape == (1, 32, 32)
    wanted = np.asarray(photo(32, 32), dtype=float).transpose(2, 0, 1)
    if name[0] in "Lsfi":
        wanted = np.broadcast_to(np.asarray(photo(32, 32).convert("L"), dtype=float), (3, 32, 32))
    if name == "RGBA.png":
        wanted[:, :, :16] = 255  # what is transparent is white
    if name == "one.png":
        assert set(np.unique(rgb)) == {0, 255}
        return
    lossy = name.endswith(("jpg", "webp")) or name == "P.png"
    assert np.abs(rgb - wanted).mean() < (9 if lossy else 1)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_pictures_of_fewer_bits_than_16_fill_what_is_seen(tmp_path: Path, ending: str) -> None:
    values = np.arange(4096).reshape(64, 64).astype(np.uint16)  # of a camera of 12 bits
    for at in range(4):
        (tmp_path / "ab"[at % 2]).mkdir(exist_ok=True)
        Image.fromarray(np.roll(values, at, 0)).save(tmp_path / "ab"[at % 2] / f"{at}.{ending}")
    dataset = load(tmp_path, recipe=DataRecipe(size=64))
    wanted = np.rint(np.roll(values, 1, 0) * (255 / 4095))
    assert np.array_equal(dataset.inputs["image"][dataset.ids == f"b/1.{ending}"][0, 0], wanted)
    assert any("values of 16 bits from 0 to 4,095 become 0 to 255" in note for note in dataset.notes)
    # what comes later is seen as they were, whatever it uses
    (tmp_path / "new").mkdir()
    Image.fromarray(np.full((64, 64), 2048, np.uint16)).save(tmp_path / "new" / f"x.{ending}")
    Image.fromarray(np.full((64, 64), 65535, np.uint16)).save(tmp_path / "new" / f"y.{ending}")
    later = load_like(tmp_path / "new", dataset.schema).inputs["image"]
    assert later.reshape(2, -1).tolist() == [[128] * 4096, [255] * 4096]
    both = load(tmp_path / "new", recipe=DataRecipe(target=r"(\w)\."))
    assert both.schema.bits == 16


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_one(tmp_path / "a.gif", 16)[:, 3, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_that_a_camera_wrote_is_respected(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    upright = photo(48, 48)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"p.{suffix}", exif=exif, quality=95)
    got = read_one(tmp_path / f"p.{suffix}", 48).transpose(1, 2, 0)
    assert np.abs(got - np.asarray(upright, dtype=float)).mean() < 6


def test_large_pictures_are_squeezed_as_a_whole(tmp_path: Path) -> None:
    wide = Image.new("RGB", (400, 200), "black")
    wide.paste("white", (0, 0, 200, 200))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for row in range(3):
            wide.save(tmp_path / name / f"{row}.jpg")
    dataset = load(tmp_path)
    assert dataset.inputs["image"].shape == (6, 3, 96, 96) or dataset.inputs["image"].shape == (6, 1, 96, 96)
    pixels = dataset.inputs["image"][0, 0]
    assert pixels[:, :44].min() > 245
    assert pixels[:, 52:].max() < 10
    assert load(tmp_path, recipe=DataRecipe(size=20)).schema.image == (1, 20, 20)
    assert any("squeezed to 96 x 96" in note for note in dataset.notes)


def test_a_jpeg_read_at_a_smaller_scale_is_the_picture(tmp_path: Path) -> None:
    large = photo(640, 480)
    large.save(tmp_path / "a.jpg", quality=95)
    wanted = np.asarray(large.resize((64, 64), Image.Resampling.BILINEAR), dtype=float)
    assert np.abs(read_one(tmp_path / "a.jpg", 64).transpose(1, 2, 0) - wanted).mean() < 4


def test_one_coloured_picture_makes_all_coloured(tmp_path: Path) -> None:
    folder_of(tmp_path, rows=300)
    assert load(tmp_path).schema.image == (1, 8, 8)
    names = sorted(path.name for path in (tmp_path / "eight").iterdir())
    hidden = tmp_path / "eight" / names[101]  # not among the sample that is looked at first
    Image.fromarray(np.dstack([np.asarray(Image.open(hidden)), np.zeros((8, 8, 2), np.uint8)])).save(hidden)
    dataset = load(tmp_path)
    assert dataset.schema.image == (3, 8, 8)
    row = dataset.ids.tolist().index(f"eight/{names[101]}")
    assert dataset.inputs["image"][row, 1:].max() == 0
    assert dataset.inputs["image"][row, 0].max() > 0
    assert load(tmp_path, recipe=DataRecipe(colour="grey")).schema.image == (1, 8, 8)


def test_grey_pictures_stored_in_colour_are_grey(tmp_path: Path) -> None:
    folder_of(tmp_path)
    before = load(tmp_path).inputs["image"]
    for path in tmp_path.rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    np.testing.assert_array_equal(load(tmp_path).inputs["image"], before)


def test_coloured_test_pictures_decide_nothing(tmp_path: Path) -> None:
    folder_of(tmp_path / "train")
    folder_of(tmp_path / "test", rows=2, side=20)
    for path in (tmp_path / "test").rglob("*.png"):
        Image.new("RGB", (30, 20), "red").save(path)
    dataset = load(tmp_path)
    assert dataset.schema.image == (1, 8, 8)
    assert dataset.fixed_test is not None
    assert dataset.fixed_test.tolist() == [False] * 12 + [True] * 4
    assert dataset.ids[[0, -1]].tolist() == ["train/eight/0.png", "test/three/1.png"]
    named = load(tmp_path / "train", test=tmp_path / "test")
    np.testing.assert_array_equal(named.inputs["image"], dataset.inputs["image"])


@pytest.mark.parametrize(
    ("parts", "advice"),
    [
        (("train", "val", "test"), "ayatori run '{0}/train' --test '{0}/test'"),
        (("Training", "Validation"), "ayatori run '{0}/Training' --test '{0}/Validation'"),
    ],
)
def test_parts_that_hold_the_classes_are_not_taken_for_classes(
    tmp_path: Path, parts: tuple[str, ...], advice: str
) -> None:
    for part in parts:
        for kind in ("cat", "dog"):
            (tmp_path / part / kind).mkdir(parents=True)
            Image.new("L", (4, 4)).save(tmp_path / part / kind / "0.png")
    with pytest.raises(AyatoriError, match="are parts, with the classes cat, dog inside") as caught:
        load(tmp_path)
    assert advice.format(tmp_path) in str(caught.value)


def bare_parts(folder: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        (folder / part).mkdir(parents=True)
        for number in range(3):
            Image.new("L", (4, 4)).save(folder / part / f"{number}.png")


def test_parts_without_classes_are_not_taken_for_classes(tmp_path: Path) -> None:
    bare_parts(tmp_path / "bare", ("train", "test"))
    with pytest.raises(
        AyatoriError, match=r"are parts, without folders of classes .* ayatori run '.*train'$"
    ):
        load(tmp_path / "bare")
    bare_parts(tmp_path / "told", ("train", "val"))
    for part in ("train", "val"):
        lines = [{"file_name": f"{number}.png", "label": "ab"[number % 2]} for number in range(3)]
        text = "\n".join(map(json.dumps, lines))
        (tmp_path / "told" / part / "metadata.jsonl").write_text(text)
    with pytest.raises(AyatoriError, match=r"--test '.*val/metadata\.jsonl'"):
        load(tmp_path / "told")


def test_classes_may_be_called_like_parts_where_none_is_called_train(tmp_path: Path) -> None:
    bare_parts(tmp_path, ("eval", "dev"))
    assert load(tmp_path).classes == ("dev", "eval")


def test_a_class_that_only_the_test_knows_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path / "train")
    folder_of(tmp_path / "test", classes=("eight", "four"))
    with pytest.raises(AyatoriError, match="'four'"):
        load(tmp_path)


def test_pictures_larger_than_memory_are_mapped_and_equal(tmp_path: Path) -> None:
    folder_of(tmp_path / "data")
    (tmp_path / "data" / "eight" / "3.png").write_bytes(b"broken")
    plain = load(tmp_path / "data")
    mapped = load(tmp_path / "data", recipe=DataRecipe(memory_gb=1e-9), cache=tmp_path / "cache")
    assert isinstance(mapped.inputs["image"], np.memmap)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npy"]
    np.testing.assert_array_equal(mapped.inputs["image"], plain.inputs["image"])
    assert mapped.fingerprint == plain.fingerprint
    without = load(tmp_path / "data", recipe=DataRecipe(memory_gb=1e-9)).inputs["image"]
    assert isinstance(without, np.memmap)
    assert str(tmp_path) not in str(without.filename)


def test_a_failed_load_leaves_no_store_behind(tmp_path: Path) -> None:
    folder_of(tmp_path / "data", rows=300)
    names = sorted((tmp_path / "data" / "eight").iterdir())
    png_header(20_000, 20_000, names[101])  # not among the sample that is looked at first
    with pytest.raises(AyatoriError, match="megapixels"):
        load(tmp_path / "data", recipe=DataRecipe(memory_gb=1e-9), cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_broken_pictures_are_named_and_skipped_or_refused(tmp_path: Path) -> None:
    folder_of(tmp_path, side=64)
    whole = (tmp_path / "eight" / "1.png").read_bytes()
    (tmp_path / "eight" / "1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "three" / "0.png").write_bytes(b"")
    photo().save(tmp_path / "three" / "x.jpg")
    (tmp_path / "three" / "x.jpg").write_bytes((tmp_path / "three" / "x.jpg").read_bytes()[:300])
    dataset = load(tmp_path)
    assert len(dataset) == 10
    assert dataset.labels.tolist() == [0] * 5 + [1] * 5
    assert dataset.inputs["image"][:, 0].max(axis=(1, 2)).min() > 0
    (note,) = [note for note in dataset.notes if "broken" in note]
    for name in ("eight/1.png", "three/0.png", "three/x.jpg"):
        assert name in note
        assert name not in dataset.ids
    assert "0x" not in note  # no addresses: notes are the same in every run
    with pytest.raises(AyatoriError, match=r"eight/1\.png"):
        load(tmp_path, recipe=DataRecipe(strict=True))


def test_a_class_of_broken_pictures_is_no_class(tmp_path: Path) -> None:
    folder_of(tmp_path)
    (tmp_path / "five").mkdir()
    (tmp_path / "five" / "a.png").write_bytes(b"nothing")
    assert load(tmp_path).classes == ("eight", "three")


@pytest.mark.parametrize("side", [(50_000, 50_000), (10_001, 10_000), (13_500, 13_000)])
def test_a_gigantic_picture_is_refused_before_it_is_decoded(tmp_path: Path, side: tuple[int, int]) -> None:
    folder_of(tmp_path)
    png_header(*side, tmp_path / "three" / "big.png")
    with pytest.raises(AyatoriError, match=r"at most 100 megapixels, however '.*big\.png'"):
        load(tmp_path)


def test_a_large_picture_that_is_allowed_gives_no_warning(tmp_path: Path) -> None:
    folder_of(tmp_path)
    png_header(9_900, 9_900, tmp_path / "three" / "big.png")  # Pillow warns from 89 megapixels on
    assert len(load(tmp_path)) == 12


def test_odd_files_and_folders_are_left_out_and_said(tmp_path: Path) -> None:
    folder_of(tmp_path / "data", rows=3)
    data = tmp_path / "data"
    (data / ".hidden").mkdir()
    (data / "eight" / ".DS_Store.png").write_bytes(b"x")
    (data / "eight" / "notes.txt").write_text("x")
    (data / "empty").mkdir()
    photo().save(data / "loose.png")
    photo().save(tmp_path / "outside.png")
    os.symlink(tmp_path / "outside.png", data / "eight" / "link.png")
    os.symlink(tmp_path, data / "eight" / "up")
    os.symlink(data / "three" / "0.png", data / "eight" / "inside.png")
    deep = data / "three" / "más adentro" / "日本"
    deep.mkdir(parents=True)
    Image.open(data / "three" / "0.png").save(deep / "a b.PNG")
    dataset = load(data)
    assert dataset.ids.tolist() == [
        *(f"eight/{name}.png" for name in (0, 1, 2, "inside")),
        *(f"three/{name}.png" for name in (0, 1, 2)),
        "three/más adentro/日本/a b.PNG",
    ]
    said = " ".join(dataset.notes)
    for words in ("'empty' is left out", "1 picture outside", "1 file of another kind", "2 links lead"):
        assert words in said


def test_a_table_of_paths_names_pictures_and_labels(tmp_path: Path) -> None:
    folder_of(tmp_path)
    rows = [
        f"{path.relative_to(tmp_path)},p{row // 2},{path.parent.name}"
        for row, path in enumerate(sorted(tmp_path.rglob("*.png")))
    ]
    (tmp_path / "list.csv").write_text("file,who,kind\n" + "\n".join(rows))
    named, plain = load(tmp_path / "list.csv", recipe=DataRecipe(groups="who")), load(tmp_path)
    np.testing.assert_array_equal(named.inputs["image"], plain.inputs["image"])
    np.testing.assert_array_equal(named.labels, plain.labels)
    assert named.ids.tolist() == plain.ids.tolist()
    assert named.groups is not None
    assert named.groups.tolist() == [row // 2 for row in range(12)]
    again = load_like(tmp_path / "list.csv", named.schema, need_target=True)
    np.testing.assert_array_equal(again.labels, named.labels)
    (tmp_path / "values.csv").write_text(
        "file,age\n"
        + "\n".join(f"{row.split(',')[0]},{at}.5" for at, row in enumerate(rows[:4]))
        + "\nthree/0.png,"
    )
    values = load(tmp_path / "values.csv")
    assert values.task == "regression"
    assert values.labels[:, 0].tolist() == [0.5, 1.5, 2.5, 3.5]


def listed(tmp_path: Path, endings: bool) -> None:
    """A table beside the folder of its pictures, as competitions give them."""
    folder_of(tmp_path / "photos")
    (tmp_path / "train").mkdir()
    lines = ["id,kind"]
    for path in sorted((tmp_path / "photos").rglob("*.png")):
        name = f"{path.parent.name}{path.stem}a"
        path.rename(tmp_path / "train" / f"{name}.png")
        lines.append(f"{name}{'.png' * endings},{path.parent.name}")
    shutil.rmtree(tmp_path / "photos")
    (tmp_path / "train.csv").write_text("\n".join(lines))


def test_cells_of_a_plain_table_are_not_sought_among_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "\n".join(f"{at},{at / 7},{at % 3},{'ab'[at % 2]}" for at in range(100))
    (tmp_path / "table.csv").write_text(f"one,two,three,y\n{rows}\n")
    for name in ("here", "there", "elsewhere"):
        (tmp_path / name).mkdir()
    asked: list[object] = []
    is_file = os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: asked.append(path) or is_file(path))
    load(tmp_path / "table.csv", target="y")
    assert len(asked) < 10


@pytest.mark.parametrize("endings", [False, True])
def test_a_table_may_name_pictures_of_a_folder_beside_it_without_their_ending(
    tmp_path: Path, endings: bool
) -> None:
    listed(tmp_path, endings)
    dataset = load(tmp_path / "train.csv")
    folder_of(tmp_path / "plain")
    np.testing.assert_array_equal(dataset.inputs["image"], load(tmp_path / "plain").inputs["image"])
    assert set(dataset.classes) == {path.name for path in (tmp_path / "plain").iterdir()}
    assert any(f"names pictures in '{tmp_path / 'train'}'" in note for note in dataset.notes)
    (tmp_path / "test").mkdir()
    new = sorted((tmp_path / "train").iterdir())[0]
    new.rename(tmp_path / "test" / f"new{new.suffix}")
    (tmp_path / "test.csv").write_text(f"id\nnew{new.suffix * endings}")
    found = load_like(tmp_path / "test.csv", dataset.schema)
    assert found.ids.tolist() == [f"new{new.suffix * endings}"]
    row = dataset.ids.tolist().index(new.name if endings else new.stem)
    np.testing.assert_array_equal(found.inputs["image"][0], dataset.inputs["image"][row])


def test_the_folder_of_the_pictures_of_a_table_can_be_anywhere_if_it_is_named(tmp_path: Path) -> None:
    listed(tmp_path, endings=False)
    beside = load(tmp_path / "train.csv")
    (tmp_path / "far").mkdir()
    (tmp_path / "train").rename(tmp_path / "far" / "photos")
    assert load(tmp_path / "train.csv").schema.image is None
    far = str(tmp_path / "far" / "photos")
    for data in (tmp_path / "train.csv", pd.read_csv(tmp_path / "train.csv")):
        found = load(data, recipe=DataRecipe(target="kind", pictures=far))
        np.testing.assert_array_equal(found.inputs["image"], beside.inputs["image"])
        np.testing.assert_array_equal(found.labels, beside.labels)
    for wrong, sentence in (
        (tmp_path / "train.csv", "must be a folder"),
        (tmp_path / "far", "none of id, kind"),
    ):
        with pytest.raises(AyatoriError, match=sentence):
            load(tmp_path / "train.csv", recipe=DataRecipe(pictures=str(wrong)))
    with pytest.raises(AyatoriError, match="a folder of files; leave it out"):
        load(tmp_path / "far", recipe=DataRecipe(pictures=far))


def test_names_that_two_folders_hold_are_refused(tmp_path: Path) -> None:
    listed(tmp_path, endings=True)
    shutil.copytree(tmp_path / "train", tmp_path / "copy")
    with pytest.raises(AyatoriError, match="must name files of one folder, however"):
        load(tmp_path / "train.csv")
    assert load(tmp_path / "train.csv", recipe=DataRecipe(pictures=str(tmp_path / "copy"))).schema.image


def test_a_table_with_more_to_learn_from_stays_a_table_and_says_that_a_column_names_pictures(
    tmp_path: Path,
) -> None:
    listed(tmp_path, endings=False)
    frame = pd.read_csv(tmp_path / "train.csv")
    frame.insert(1, "age", np.arange(len(frame)) / 3)
    frame.to_csv(tmp_path / "train.csv", index=False)
    dataset = load(tmp_path / "train.csv")
    assert dataset.schema.image is None
    assert any(f"--pictures '{tmp_path / 'train'}'" in note for note in dataset.notes)
    pictures = load(tmp_path / "train.csv", recipe=DataRecipe(pictures=str(tmp_path / "train")))
    assert pictures.schema.image is not None
    assert any("left out: age" in note for note in pictures.notes)


def test_a_text_longer_than_a_file_name_can_be_names_no_picture(tmp_path: Path) -> None:
    listed(tmp_path, endings=False)
    lines = [f"{'much said ' * 100}{row},{row % 2}" for row in range(40)]
    (tmp_path / "said.csv").write_text(
        "\n".join(["text,sort,kind", *(f"{line},{len(line)}" for line in lines)])
    )
    assert load(tmp_path / "said.csv").schema.image is None


def test_a_table_of_its_own_pictures_is_the_test_of_another(tmp_path: Path) -> None:
    listed(tmp_path, endings=False)
    frame = pd.read_csv(tmp_path / "train.csv")
    test = frame.groupby("kind").head(1)
    (tmp_path / "test").mkdir()
    for name in test["id"]:
        (tmp_path / "train" / f"{name}.png").rename(tmp_path / "test" / f"{name}.png")
    test.to_csv(tmp_path / "test.csv", index=False)
    frame.drop(index=test.index).to_csv(tmp_path / "train.csv", index=False)
    dataset = load(tmp_path / "train.csv", test=tmp_path / "test.csv")
    assert dataset.fixed_test is not None
    assert dataset.ids[dataset.fixed_test].tolist() == test["id"].tolist()


@pytest.mark.parametrize("flat", [False, True])
def test_a_folder_with_a_table_of_its_pictures_is_refused_with_the_table_to_give(
    tmp_path: Path, flat: bool
) -> None:
    listed(tmp_path, endings=True)
    (tmp_path / "sample.csv").write_text("id,kind\nnothing,here")
    if flat:
        for path in (tmp_path / "train").iterdir():
            path.rename(tmp_path / path.name)
        (tmp_path / "train").rmdir()
    else:
        (tmp_path / "test").mkdir()
        shutil.copy(next((tmp_path / "train").iterdir()), tmp_path / "test" / "new.png")
    with pytest.raises(AyatoriError, match=f"ayatori run '{tmp_path / 'train.csv'}'"):
        load(tmp_path)


def test_paths_that_leave_the_folder_of_the_table_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path / "data")
    (tmp_path / "lists").mkdir()
    rows = ["../data/eight/0.png,a", "../data/three/0.png,b"]
    (tmp_path / "lists" / "list.csv").write_text("file,kind\n" + "\n".join(rows))
    with pytest.raises(AyatoriError, match="must stay inside"):
        load(tmp_path / "lists" / "list.csv")


def test_new_pictures_are_read_like_the_first(tmp_path: Path) -> None:
    folder_of(tmp_path / "data")
    dataset = load(tmp_path / "data")
    (tmp_path / "flat").mkdir()
    for path in (tmp_path / "data" / "three").iterdir():
        Image.open(path).convert("RGB").resize((80, 40), Image.Resampling.NEAREST).save(
            tmp_path / "flat" / path.name
        )
    rows = load_like(tmp_path / "flat", dataset.schema)
    assert rows.target is None
    assert rows.ids.tolist() == [f"{row}.png" for row in range(6)]
    assert np.abs(rows.inputs["image"].astype(float) - dataset.inputs["image"][6:]).mean() < 20
    one = load_like(tmp_path / "data" / "three" / "0.png", dataset.schema)
    np.testing.assert_array_equal(one.inputs["image"], dataset.inputs["image"][6:7])
    again = load_like(tmp_path / "data", dataset.schema, need_target=True)
    np.testing.assert_array_equal(again.labels, dataset.labels)


def test_pictures_and_tables_do_not_stand_in_for_each_other(tmp_path: Path) -> None:
    folder_of(tmp_path / "data")
    pictures = load(tmp_path / "data").schema
    table = load(np.arange(20.0).reshape(10, 2), y=[0, 1] * 5).schema
    (tmp_path / "t.csv").write_text("x0,x1\n1,2\n")
    with pytest.raises(SchemaError, match="must be pictures"):
        load_like(tmp_path / "t.csv", pictures)
    with pytest.raises(SchemaError, match="must be a table"):
        load_like(tmp_path / "data", table)
    with pytest.raises(SchemaError, match="must have the shape"):
        load_like(np.zeros((2, 3, 8, 8), np.uint8), pictures)


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    folder_of(tmp_path, rows=50)
    told: list[tuple[int, int]] = []
    load(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(64, 100), (100, 100)]
