"""The commands, as a user types them: what they write, and what they say when something is wrong."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ayatori import cli
from tests.helpers import command

QUICK = ("--epochs", "2", "--folds", "2", "--baselines", "none", "--no-look", "--quiet")
Ayatori = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ayatori(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> Ayatori:
    """Run a command in an empty folder: (exit code, output, what was said on stderr)."""
    monkeypatch.chdir(tmp_path)

    def command(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ayatori", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def table(rows: int = 60, **columns: object) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=rows), "b": random.normal(size=rows)})
    frame["word"] = random.choice(["x", "y", "z"], rows)
    for name, values in columns.items():
        frame[name] = values
    frame["y"] = np.where(frame["a"] > 0, "yes", "no")
    return frame


def write(frame: pd.DataFrame, name: str = "table.csv") -> Path:
    frame.to_csv(name, index=False)
    return Path(name)


def pictures(folder: Path, each: int = 12, size: tuple[int, int] = (10, 8)) -> Path:
    random = np.random.default_rng(0)
    for number, name in enumerate(["dark cats", "白い犬"]):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            pixels = random.integers(0, 120, (*size, 3), dtype=np.uint8) + np.uint8(120 * number)
            Image.fromarray(pixels).save(folder / name / f"{index} é.png")
    return folder


def test_run_writes_the_whole_folder_and_ends_with_done(ayatori: Ayatori) -> None:
    code, out, err = ayatori("run", write(table()), *QUICK, "--out", "mine")
    assert (code, err) == (0, "")
    names = {str(path.relative_to("mine")) for path in Path("mine").rglob("*") if path.is_file()}
    assert names >= {
        "DONE",
        "data.json",
        "members/000/history.parquet",
        "members/000/weights.safetensors",
        "members/001/weights.safetensors",
        "model/model.json",
        "plan.parquet",
        "predictions.parquet",
        "recipe.toml",
        "report.html",
        "result.json",
    }
    assert "mean of 2 folds" in out
    result = json.loads(Path("mine/result.json").read_text(), parse_constant=pytest.fail)
    assert result["task"] == "classification"
    assert result["classes"] == ["no", "yes"]
    assert result["rows"] == {"development": 48, "test": 12}
    assert result["chosen"] in {entry["name"] for entry in result["leaderboard"]}
    for entry in result["leaderboard"]:
        assert entry["split"] in {"out_of_fold", "test"}
        for score in entry["scores"].values():
            assert score["low"] <= score["value"] <= score["high"]
            assert score["n"] == {"out_of_fold": 48, "test": 12}[entry["split"]]
    predictions = pd.read_parquet("mine/predictions.parquet")
    assert set(predictions.columns) >= {"row", "true", "fold", "split", "name", "p_no", "p_yes"}


def test_the_recipe_of_a_run_repeats_it_byte_for_byte(ayatori: Ayatori) -> None:
    data = write(table())
    ayatori("run", data, *QUICK, "--out", "first", "--seed", "7")
    assert ayatori("run", data, "--recipe", "first/recipe.toml", "--out", "second", "--quiet")[0] == 0
    for name in ("predictions.parquet", "recipe.toml", "members/000/weights.safetensors"):
        assert Path("first", name).read_bytes() == Path("second", name).read_bytes(), name
    assert tomllib.loads(Path("first/recipe.toml").read_text())["train"]["epochs"] == 2


def test_how_networks_run_together_can_be_forced_and_is_said(ayatori: Ayatori) -> None:
    words = ("--mode", "turns", "--threads", "1", "--together", "1")
    loud = [word for word in QUICK if word != "--quiet"]
    code, out, _ = ayatori("run", write(table()), *loud, *words, "--out", "mine")
    assert code == 0
    assert "networks in turn, 1 in memory at once: it was asked for" in out
    engine = tomllib.loads(Path("mine/recipe.toml").read_text(encoding="utf-8"))["engine"]
    assert (engine["mode"], engine["threads"], engine["together"]) == ("turns", 1, 1)


def test_json_prints_result_json_and_nothing_else(ayatori: Ayatori) -> None:
    code, out, _ = ayatori("run", write(table()), *QUICK, "--json")
    assert code == 0
    assert json.loads(out) == json.loads(Path("runs/table/result.json").read_text())


def test_predict_gives_ids_labels_and_probabilities_of_rows_without_a_target(ayatori: Ayatori) -> None:
    frame = table()
    ayatori("run", write(frame), *QUICK, "--out", "mine")
    new = frame.drop(columns="y").assign(extra="ignored")
    new.loc[0, "word"], new.loc[1, "a"] = "never seen", np.nan
    assert ayatori("predict", "mine", write(new, "new.csv"), "-o", "out.csv")[0] == 0
    told = pd.read_csv("out.csv")
    assert list(told.columns) == ["id", "label", "p_no", "p_yes"]
    np.testing.assert_allclose(told[["p_no", "p_yes"]].sum(axis=1), 1, rtol=1e-5)
    assert (told["label"] == np.where(told["p_yes"] > told["p_no"], "yes", "no")).all()


def test_the_model_on_disk_says_what_the_run_said_of_the_sealed_rows(ayatori: Ayatori) -> None:
    data = write(table())
    ayatori("run", data, *QUICK, "--out", "mine")
    ayatori("predict", "mine", data, "-o", "out.csv")
    told = pd.read_csv("out.csv")
    kept = pd.read_parquet("mine/predictions.parquet")
    kept = kept[(kept["split"] == "test") & (kept["name"] == "mean of 2 folds")]
    np.testing.assert_allclose(told.loc[kept["row"], "p_yes"], kept["p_yes"], rtol=1e-5, atol=1e-7)


def test_like_gives_the_columns_ids_and_order_of_the_sample(ayatori: Ayatori) -> None:
    frame = table(PassengerId=np.arange(100, 160))
    ayatori("run", write(frame), *QUICK, "--ids", "PassengerId", "--out", "mine")
    new = write(frame.drop(columns="y").head(9), "new.csv")
    order = [104, 108, 100, 101, 103, 102, 107, 105, 106]
    for columns in (["PassengerId", "y"], ["PassengerId", "yes"], ["PassengerId", "p_no", "yes"]):
        sample = pd.DataFrame({name: order if name == "PassengerId" else 0.5 for name in columns})
        if columns[1] == "y":
            sample["y"] = "no"
        write(sample, "sample.csv")
        Path("sub.csv").unlink(missing_ok=True)
        assert ayatori("predict", "mine", new, "-o", "sub.csv", "--like", "sample.csv")[0] == 0
        made = pd.read_csv("sub.csv")
        assert list(made.columns) == columns
        assert list(made["PassengerId"]) == order
    assert made["p_no"].add(made["yes"]).to_numpy() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("ids", "words"), [([100, 101, 999], "ids of the sample are missing"), ([100], "not in the")]
)
def test_a_sample_with_missing_or_extra_rows_is_refused(ayatori: Ayatori, ids: list[int], words: str) -> None:
    frame = table(PassengerId=np.arange(100, 160))
    ayatori("run", write(frame), *QUICK, "--ids", "PassengerId", "--out", "mine")
    new = write(frame.drop(columns="y").head(3), "new.csv")
    sample = write(pd.DataFrame({"PassengerId": ids, "y": "no"}), "sample.csv")
    code, _, said = ayatori("predict", "mine", new, "-o", "sub.csv", "--like", sample)
    assert code == 2
    assert words in said
    assert not Path("sub.csv").exists()


def test_pictures_run_and_are_predicted_by_their_names(ayatori: Ayatori, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "my pictures")
    assert ayatori("run", folder, *QUICK, "--out", "mine")[0] == 0
    plain = tmp_path / "new ones"
    plain.mkdir()
    for path in sorted((folder / "白い犬").iterdir())[:3]:
        shutil.copy(path, plain)
    assert ayatori("predict", "mine", plain, "-o", "out.csv")[0] == 0
    told = pd.read_csv("out.csv")
    assert list(told["id"]) == ["0 é.png", "1 é.png", "10 é.png"]
    write(pd.DataFrame({"name": ["1 é", "0 é", "10 é"], "label": ""}), "sample.csv")
    assert ayatori("predict", "mine", plain, "-o", "sub.csv", "--like", "sample.csv")[0] == 0
    assert list(pd.read_csv("sub.csv")["name"]) == ["1 é", "0 é", "10 é"]


def test_a_broken_picture_is_named_and_skipped_or_refused_when_strict(
    ayatori: Ayatori, tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "pets")
    whole = (folder / "dark cats" / "0 é.png").read_bytes()
    (folder / "dark cats" / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    code, _, said = ayatori("run", folder, *QUICK, "--strict", "--out", "strict")
    assert code == 2
    assert "broken.jpg" in said
    code, _, _ = ayatori("run", folder, *QUICK, "--out", "lenient")
    assert code == 0
    assert any("broken.jpg" in note for note in json.loads(Path("lenient/data.json").read_text())["notes"])


def test_a_test_file_is_the_sealed_test(ayatori: Ayatori) -> None:
    train, test = write(table(60), "train.csv"), write(table(25), "test.csv")
    assert ayatori("run", train, *QUICK, "--test", test, "--out", "mine")[0] == 0
    assert json.loads(Path("mine/result.json").read_text())["rows"] == {"development": 60, "test": 25}


@pytest.mark.parametrize("strategy", ["holdout", "rotate"])
def test_other_strategies_run_and_predict(ayatori: Ayatori, strategy: str) -> None:
    data = write(table())
    assert ayatori("run", data, *QUICK, "--strategy", strategy, "--out", "mine")[0] == 0
    assert ayatori("predict", "mine", data, "-o", "out.csv")[0] == 0
    names = {entry["name"] for entry in json.loads(Path("mine/result.json").read_text())["leaderboard"]}
    assert names == {{"holdout": "one network, hold-out", "rotate": "best of 2, rotated"}[strategy]}


def test_the_report_is_written_again(ayatori: Ayatori) -> None:
    ayatori("run", write(table()), *QUICK, "--out", "mine")
    before = Path("mine/report.html").read_text()
    Path("mine/report.html").unlink()
    assert ayatori("report", "mine")[0] == 0
    assert Path("mine/report.html").read_text() == before


def test_where_most_rows_that_judge_are_copies_the_answer_is_not_known(ayatori: Ayatori) -> None:
    few = table()[:12]
    copies = pd.concat([few] * 20, ignore_index=True)
    words = ("--preset", "quick", "--baselines", "majority", "--no-look")
    code, said, _ = ayatori("run", write(copies), *words, "--out", "mine")
    assert code == 0
    assert "Not known: most rows that judge are copies of rows that were learned from." in said
    answer = json.loads(Path("mine/report.json").read_text())["answer"]
    assert answer["level"] == "known"
    assert " of the 48 rows that judge are copies of rows that were learned from" in answer["text"]
    assert "Take copies out of one side" in answer["next"]


def test_two_runs_on_the_same_data_get_their_own_folders(ayatori: Ayatori) -> None:
    data = write(table())
    ayatori("run", data, *QUICK)
    ayatori("run", data, *QUICK)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["table", "table-2"]


def cut_parquet() -> Path:
    table().to_parquet("cut.parquet")
    whole = Path("cut.parquet").read_bytes()
    Path("cut.parquet").write_bytes(whole[: len(whole) // 2])
    return Path("cut.parquet")


def twice_named() -> Path:
    Path("twice.csv").write_text("a,a,y\n" + "1,2,no\n3,4,yes\n" * 10)
    return Path("twice.csv")


def text_in_numbers() -> Path:
    frame = table()
    frame["a"] = frame["a"].astype(object)
    frame.loc[7, "a"] = "twelve"
    return write(frame)


def empty(name: str) -> Path:
    Path(name).write_text("")
    return Path(name)


def empty_folder() -> Path:
    Path("nothing").mkdir()
    return Path("nothing")


def enormous_picture() -> Path:
    folder = pictures(Path("big"))
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0))
    body = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    (folder / "dark cats" / "huge.png").write_bytes(body)
    return folder


RUBBISH = {
    "a file that is not there": (lambda: Path("nowhere.csv"), (), "nowhere.csv"),
    "an empty file": (lambda: empty("empty.csv"), (), "empty.csv"),
    "an empty folder": (empty_folder, (), "nothing"),
    "a header without rows": (lambda: write(table().head(0)), (), "row"),
    "one row": (lambda: write(table().head(1)), (), ""),
    "one class": (lambda: write(table().assign(y="yes")), (), "class"),
    "a class with fewer rows than folds": (
        lambda: write(table().assign(y=["rare"] * 3 + ["no", "yes"] * 28 + ["no"])),
        ("--folds", "5"),
        "'rare'",
    ),
    "a missing column": (lambda: write(table()), ("--target", "whyy"), "whyy"),
    "a duplicated column": (twice_named, (), "'a'"),
    "a target that is all missing": (lambda: write(table().assign(y=np.nan)), (), "'y'"),
    "an infinite number": (lambda: write(table(c=[np.inf] + [1.0] * 30 + [2.0] * 29)), (), "'c'"),
    "text in a column of numbers": (text_in_numbers, (), "twelve"),
    "a Parquet file cut in half": (cut_parquet, (), "cut.parquet"),
    "a picture of 50 000 x 50 000": (enormous_picture, (), "huge.png"),
    "an unknown option": (lambda: write(table()), ("--fold", "3"), "--folds"),
    "a word that no option names": (lambda: write(table()), ("b.csv",), "an option must say what 'b.csv' is"),
    "an option given twice": (
        lambda: write(table()),
        ("--target", "y", "--target", "a"),
        "a comma parts several",
    ),
    "an option that wants a number": (lambda: write(table()), ("--folds", "many"), "many"),
    "an unknown network": (lambda: write(table()), ("--net", "mlpp"), "did you mean 'mlp'"),
    "an unknown loss": (lambda: write(table()), ("--loss", "mse"), "mse"),
    "an unknown rival": (lambda: write(table()), ("--baselines", "boost"), "boost"),
    "an unknown augmentation": (lambda: pictures(Path("pets")), ("--augment", "lite"), "lite"),
    "an unknown group column": (lambda: write(table()), ("--groups", "patient"), "patient"),
    "a recipe that is not there": (lambda: write(table()), ("--recipe", "no.toml"), "no.toml"),
    "a test file that is not there": (lambda: write(table()), ("--test", "no.csv"), "no.csv"),
    "a share that is none": (lambda: write(table()), ("--test", "1.5"), "1.5"),
    "a negative epoch": (lambda: write(table()), ("--epochs", "-3"), "-3"),
}


@pytest.mark.parametrize("case", RUBBISH, ids=str)
def test_rubbish_gets_one_sentence_and_exit_code_2(ayatori: Ayatori, case: str) -> None:
    make, words, expected = RUBBISH[case]
    options = (
        ("--epochs", "1", "--folds", "2", "--quiet")
        if "--folds" not in words
        else ("--epochs", "1", "--quiet")
    )
    if "--epochs" in words:
        options = ("--quiet",)
    code, out, said = ayatori("run", make(), *options, *words, "--out", "mine")
    assert code == 2, said
    assert out == ""
    assert said.startswith("ayatori: ")
    assert "Traceback" not in said
    assert said.count("\n") == 1, "one sentence on one line"
    assert expected in said
    assert not Path("mine").exists(), "nothing half-written"


def test_an_existing_output_folder_is_never_touched(ayatori: Ayatori) -> None:
    Path("mine").mkdir()
    Path("mine/precious").write_text("keep")
    code, _, said = ayatori("run", write(table()), *QUICK, "--out", "mine")
    assert (code, "mine" in said) == (2, True)
    assert [path.name for path in Path("mine").iterdir()] == ["precious"]


def test_an_existing_prediction_is_never_overwritten(ayatori: Ayatori) -> None:
    data = write(table())
    ayatori("run", data, *QUICK, "--out", "mine")
    Path("out.csv").write_text("keep")
    assert ayatori("predict", "mine", data, "-o", "out.csv")[0] == 2
    assert Path("out.csv").read_text() == "keep"


@pytest.fixture
def nobody() -> Iterator[Callable[[], None]]:
    """Become a user without permissions (as root nothing is forbidden)."""
    mine = os.geteuid()
    yield lambda: os.seteuid(65534) if mine == 0 else None
    os.seteuid(mine)


def test_no_permission_to_write_is_said(ayatori: Ayatori, nobody: Callable[[], None], tmp_path: Path) -> None:
    data = write(table())
    assert ayatori("run", data, *QUICK, "--out", "warm")[0] == 0
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        folder.chmod(0o755)
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    nobody()
    code, _, said = ayatori("run", data, *QUICK, "--out", "locked/mine")
    assert code == 2
    assert "there is no permission to write there" in said


def test_a_full_disk_is_said_and_nothing_half_written_stays(ayatori: Ayatori) -> None:
    data = write(table())
    assert ayatori("run", data, *QUICK, "--out", "warm")[0] == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        code, _, said = ayatori("run", data, *QUICK, "--out", "mine")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    assert "largest allowed file size" in said
    assert not Path("mine").exists(), "nothing was trained yet, so nothing is kept"
    assert ayatori("run", data, *QUICK, "--out", "mine")[0] == 0
    assert Path("mine/predictions.parquet").read_bytes() == Path("warm/predictions.parquet").read_bytes()


@pytest.mark.parametrize("harm", ["missing", "extra", "changed", "no list", "rubbish list", "outside"])
def test_a_model_folder_that_was_tampered_with_is_refused(ayatori: Ayatori, harm: str) -> None:
    data = write(table())
    ayatori("run", data, *QUICK, "--out", "mine")
    model = Path("mine/model")
    weights = model / "000.safetensors"
    facts = json.loads((model / "model.json").read_text())
    if harm == "missing":
        weights.unlink()
    elif harm == "extra":
        (model / "extra.pkl").write_bytes(b"\x80\x04N.")
    elif harm == "changed":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    elif harm == "no list":
        (model / "model.json").unlink()
    elif harm == "rubbish list":
        (model / "model.json").write_text("[1, 2")
    else:
        facts["files"][0]["name"] = "../../table.csv"
        (model / "model.json").write_text(json.dumps(facts))
    code, _, said = ayatori("predict", "mine", data, "-o", "out.csv")
    assert code == 2
    assert said.count("\n") == 1
    assert "model" in said
    assert not Path("out.csv").exists()


def test_a_model_never_chooses_code_to_run(ayatori: Ayatori) -> None:
    data = write(table())
    ayatori("run", data, *QUICK, "--out", "mine")
    facts = json.loads(Path("mine/model/model.json").read_text())
    facts["files"][0]["network"]["name"] = "os:system"
    Path("mine/model/model.json").write_text(json.dumps(facts))
    code, _, said = ayatori("predict", "mine", data, "-o", "out.csv")
    assert code == 2
    assert "your own code" in said


def test_new_rows_without_a_needed_column_are_refused(ayatori: Ayatori) -> None:
    frame = table()
    ayatori("run", write(frame), *QUICK, "--out", "mine")
    code, _, said = ayatori("predict", "mine", write(frame.drop(columns="a"), "new.csv"), "-o", "out.csv")
    assert (code, "'a'" in said) == (2, True)


@pytest.mark.parametrize(
    "words", [("resume", "nowhere"), ("report", "nowhere"), ("predict", "nowhere", "x.csv", "-o", "o")]
)
def test_a_run_that_is_not_there_is_said(ayatori: Ayatori, words: tuple[str, ...]) -> None:
    code, _, said = ayatori(*words)
    assert (code, "nowhere" in said) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run",), "ayatori run must be told DATA"),
        (("predict", ".", "."), "ayatori predict must be told --out, however it is not"),
        (("run", ".", "--target"), "--target must be given a value, however nothing follows it"),
    ],
)
def test_what_is_missing_on_the_command_line_is_named(
    ayatori: Ayatori, words: tuple[str, ...], said: str
) -> None:
    code, _, answer = ayatori(*words)
    assert (code, said in answer, answer.count("\n")) == (2, True, 1)


def test_resume_of_a_complete_run_says_so(ayatori: Ayatori) -> None:
    ayatori("run", write(table()), *QUICK, "--out", "mine")
    code, out, _ = ayatori("resume", "mine")
    assert (code, "complete" in out) == (0, True)


def test_random_labels_are_scored_at_chance(ayatori: Ayatori) -> None:
    random = np.random.default_rng(1)
    data = write(table(400).assign(y=random.choice(["heads", "tails"], 400)))
    assert (
        ayatori("run", data, "--folds", "3", "--epochs", "20", "--no-look", "--quiet", "--out", "mine")[0]
        == 0
    )
    for entry in json.loads(Path("mine/result.json").read_text())["leaderboard"]:
        for name in ("roc_auc", "balanced_accuracy"):
            score = entry["scores"][name]
            assert score["low"] <= 0.5 <= score["high"], (entry["name"], name)


def test_names_with_commas_and_folders_with_spaces_can_be_written_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    chance = np.random.default_rng(0)
    table = pd.DataFrame({"size, cm": chance.normal(size=60), "b": chance.normal(size=60)})
    table.assign(**{"price, €": 3 * table.b, "c": table.b}).to_csv(tmp_path / "t.csv", index=False)
    monkeypatch.chdir(tmp_path)
    few = ("--no-look", "--folds", 2, "--epochs", 1, "--baselines", "none", "--out", "a run")
    assert command(monkeypatch, "run", "t.csv", "--target", "price, €", *few) == 2
    said = capsys.readouterr().err
    assert "did you mean 'price, €'? (a comma parts two names, unless the name that has it stands in" in said
    words = ("run", "t.csv", "--target", '"price, €"', "--drop", 'c,"size, cm"', *few)
    assert command(monkeypatch, *words) == 0
    assert "ayatori predict 'a run' NEW_DATA" in capsys.readouterr().out
    schema = json.loads((tmp_path / "a run" / "data.json").read_text(encoding="utf-8"))["schema"]
    assert (schema["target"], schema["numbers"]) == (["price, €"], ["b"])
