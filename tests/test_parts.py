"""Names of files may tell whom they are of: a part of them is the group, and a look finds that part."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import command
from PIL import Image

import ayatori
from ayatori.data import load, load_like, read_blocks
from ayatori.data.parts import parts_of, told_by
from ayatori.recipe import DataRecipe, PlanRecipe, Recipe
from ayatori.records import SCORE, SEALED, STOP, AyatoriError

PEOPLE = ("anna", "ben", "chloé", "dan", "eva", "finn", "gil", "hana")


def portraits(folder: Path, people: float = 60.0, seed: int = 0, rows: int = 10) -> Path:
    """Two classes of pictures of eight people; ``people``: how much a person's own pattern shows."""
    chance = np.random.default_rng(seed)
    faces = chance.normal(size=(len(PEOPLE), 8, 8))
    for name, mood in (("glad", 30.0), ("sad", -30.0)):
        (folder / name).mkdir(parents=True)
        for person, face in zip(PEOPLE, faces, strict=True):
            for row in range(rows):
                pixels = 128 + people * face + 20 * chance.normal(size=(8, 8))
                pixels[:2] += mood
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(folder / name / f"img-{row}_{person}.png")
    return folder


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("a/b_c-d.png", ["a", "b", "c", "d"]),
        ("a/no ending", ["a", "no", "ending"]),
        ("日本/é 1 (2).wav", ["日本", "é", "1", "2"]),
        ("a/.png", ["a"]),
        ("v1.5/x.jpeg", ["v1", "5", "x"]),
    ],
)
def test_a_path_is_cut_wherever_there_is_neither_letter_nor_digit(path: str, parts: list[str]) -> None:
    assert parts_of(path) == parts


@pytest.mark.parametrize("how", ["4", "_(.*?)[.]", "(?<=_)[^.]+"])
def test_a_part_of_the_names_keeps_files_together_in_every_split(tmp_path: Path, how: str) -> None:
    dataset = load(portraits(tmp_path), recipe=DataRecipe(groups=how))
    people = np.array([name.rpartition("_")[2] for name in dataset.ids])
    assert dataset.groups is not None
    assert len(set(zip(people.tolist(), dataset.groups.tolist(), strict=True))) == len(PEOPLE)
    plan = ayatori.make_plan(dataset, PlanRecipe(folds=3, test=0.25))
    for member in range(plan.members):
        for role in (SCORE, STOP, SEALED):
            inside = set(people[plan.rows(member, role)])
            assert inside
            assert not inside & set(people[plan.train_rows(member)])


def test_several_parts_name_one_group() -> None:
    assert told_by(["x/1_a_1.png", "x/1_b_1.png", "x/2_a_2.png"], "2,3", "groups").tolist() == [
        "1 a",
        "1 b",
        "2 a",
    ]


def test_a_test_folder_is_grouped_likewise(tmp_path: Path) -> None:
    portraits(tmp_path / "train")
    portraits(tmp_path / "test", seed=1, rows=2)
    dataset = load(tmp_path, recipe=DataRecipe(groups="4"))
    assert dataset.fixed_test is not None
    assert dataset.groups is not None
    one = dataset.groups[np.char.endswith(dataset.ids, "_anna.png")]
    assert (dataset.fixed_test.sum(), len(one), len(set(one.tolist()))) == (32, 24, 1)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("5", "however groups=5 and 'glad/img-0_anna.png' has 4: glad, img, 0, anna"),
        ("0", "`groups` numbers from 1"),
        ("(", "or be a pattern, however '\\('"),
        ("_(b.*)[.]", "is not in 'glad/img-0_anna.png'"),
    ],
)
def test_what_does_not_group_every_file_ends_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str, words: str
) -> None:
    portraits(tmp_path / "faces", rows=1)
    with pytest.raises(AyatoriError, match=words):
        load(tmp_path / "faces", recipe=DataRecipe(groups=how))
    assert command(monkeypatch, "run", tmp_path / "faces", "--groups", how, "--out", tmp_path / "run") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def sentences(folder: Path, **settings: object) -> list[str]:
    recipe = Recipe(data=DataRecipe(**settings))  # type: ignore[arg-type]
    return [
        one
        for one in ayatori.explore(folder, recipe=recipe).facts["audit"]["sentences"]
        if " part " in f" {one}"
    ]


def test_a_look_names_the_part_whose_rows_look_alike(tmp_path: Path) -> None:
    (said,) = sentences(portraits(tmp_path))
    assert said.startswith(
        "part 4 of the names (anna, ben, chloé ...: 8 values) tells which pictures look alike: "
    )
    assert said.endswith("say --groups 4, which keeps them on one side of every split")
    assert not sentences(tmp_path, groups="4")
    look = ayatori.explore(tmp_path)
    assert look.facts["verdict"]["next"].startswith("If part 4 of the names (anna, ben, chloé ...) says whom")


@pytest.mark.parametrize("seed", range(3))
def test_a_look_says_nothing_of_names_that_tell_nothing(tmp_path: Path, seed: int) -> None:
    assert not sentences(portraits(tmp_path, people=0.0, seed=seed))


def test_a_look_says_nothing_of_names_that_are_cut_differently(tmp_path: Path) -> None:
    portraits(tmp_path)
    (tmp_path / "glad" / "img-0_anna.png").rename(tmp_path / "glad" / "another one of anna.png")
    assert not sentences(tmp_path)


def test_a_table_of_files_is_told_to_name_a_column(tmp_path: Path) -> None:
    portraits(tmp_path)
    lines = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(tmp_path.rglob("*.png"))]
    (tmp_path / "faces.csv").write_text("\n".join(["file,mood", *lines]))
    (said,) = sentences(tmp_path / "faces.csv", target="mood")
    assert said.endswith("name a column of it by --groups, which keeps them on one side of every split")


@pytest.mark.parametrize("how", ["1", "^([^_]+)_", "glad|sad"])
def test_a_part_of_the_names_labels_the_files_of_a_folder(tmp_path: Path, how: str) -> None:
    for path in sorted(portraits(tmp_path / "deep").rglob("*.png")):
        path.rename(tmp_path / f"{path.parent.name}_{path.name}")
    shutil.rmtree(tmp_path / "deep")
    dataset = load(tmp_path, recipe=DataRecipe(target=how, groups="4"))
    assert dataset.classes == ("glad", "sad")
    assert [dataset.classes[code] for code in dataset.labels] == [
        name[: name.index("_")] for name in dataset.ids
    ]
    assert dataset.groups is not None
    assert len(set(dataset.groups.tolist())) == len(PEOPLE)
    with pytest.raises(AyatoriError, match=r"--target 1 is glad in 'glad_img-0_anna\.png'"):
        load(tmp_path)


def test_numbers_in_names_are_values_to_predict_and_new_folders_need_none(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for part, rows in (("train", 60), ("test", 20)):
        (tmp_path / "faces" / part).mkdir(parents=True)
        for row in range(rows):
            age = chance.uniform(1, 90)
            pixels = np.clip(2 * age + chance.normal(0, 8, (8, 8)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "faces" / part / f"{row}_age {age:.1f}.png")
    dataset = load(tmp_path / "faces", recipe=DataRecipe(target="age ([0-9.]+)[.]"))
    assert (dataset.task, len(dataset)) == ("regression", 80)
    assert dataset.fixed_test is not None
    assert dataset.fixed_test.sum() == 20
    assert [f"{age:.1f}" for age in dataset.labels[:, 0]] == [
        name.split("age ")[1][:-4] for name in dataset.ids
    ]
    (tmp_path / "new" / "some folder").mkdir(parents=True)
    shutil.copy(
        tmp_path / "faces" / "test" / dataset.ids[-1].removeprefix("test/"), tmp_path / "new" / "some folder"
    )
    (new,) = read_blocks(tmp_path / "new", dataset.schema)
    assert np.array_equal(new.inputs["image"], dataset.inputs["image"][-1:])
    later = load_like(tmp_path / "new", dataset.schema)
    assert later.target is None
    assert not any("the target is not read" in note for note in later.notes)


def test_several_targets_of_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        AyatoriError, match="must be one part of the paths, such as 2, or a pattern, however it is 1, 2"
    ):
        load(portraits(tmp_path, rows=1), recipe=DataRecipe(target=("1", "2")))


def film(folder: Path, drift: float = 0.25, frames: int = 120) -> Path:
    """Two films, of which each frame is like the one before; without drift, frames in no order."""
    chance = np.random.default_rng(0)
    for name, light in (("day", 40.0), ("night", -40.0)):
        (folder / name).mkdir(parents=True)
        scene = chance.normal(size=(8, 8))
        for frame in range(frames):
            scene = 0.97 * scene + drift * chance.normal(size=(8, 8))
            shown = scene if drift else chance.normal(size=(8, 8))
            pixels = 128 + light + 40 * shown + 10 * chance.normal(size=(8, 8))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"frame_{frame}.png")
    return folder


def test_a_look_names_the_running_number_of_a_film(tmp_path: Path) -> None:
    (said,) = sentences(film(tmp_path))
    assert said.startswith(
        "pictures that follow one another by part 3 of their names (0, 1, 2 ...) look alike: "
    )
    assert said.endswith("say --time 3, which scores later ones by earlier ones")
    look = ayatori.explore(tmp_path)
    assert look.facts["verdict"]["next"].startswith("If pictures follow one another by part 3")
    assert not sentences(tmp_path, time="3")


def test_parts_are_counted_below_the_folder_of_a_data_set_with_its_own_test(tmp_path: Path) -> None:
    portraits(tmp_path / "train")
    portraits(tmp_path / "test", seed=1, rows=2)
    (said,) = sentences(tmp_path)
    assert "part 4 of the names (anna, ben, chloé ...: 8 values)" in said
    with pytest.raises(AyatoriError, match="8 of its 8 groups have rows to learn from too"):
        ayatori.explore(tmp_path, recipe=Recipe(data=DataRecipe(groups="4")))


def test_a_look_says_nothing_of_running_numbers_in_no_order(tmp_path: Path) -> None:
    assert not sentences(film(tmp_path, drift=0.0))


def test_a_part_of_the_names_is_the_time_of_a_file(tmp_path: Path) -> None:
    dataset = load(film(tmp_path, frames=30), recipe=DataRecipe(time="3"))
    assert dataset.order is not None
    assert dataset.order.tolist() == [int(name.split("_")[1][:-4]) for name in dataset.ids]
    plan = ayatori.make_plan(dataset, PlanRecipe(folds=3))
    for member in range(plan.members):
        scored = dataset.order[plan.rows(member, SCORE)]
        assert dataset.order[plan.train_rows(member)].max() <= scored.min()
    with pytest.raises(AyatoriError, match="must hold a number or a date in every row"):
        load(tmp_path, recipe=DataRecipe(time="2"))
