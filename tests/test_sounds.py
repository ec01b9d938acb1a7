"""Recordings become pictures of their sound, whatever their format, rate and loudness, and are learned."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from helpers import command
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly
from starlette.testclient import TestClient

import ayatori
from ayatori.augment import augment
from ayatori.data import load, load_like, read_blocks
from ayatori.data.sounds import UnheardError, read_sound
from ayatori.model_files import load_model
from ayatori.recipe import DataRecipe, PlanRecipe, Recipe, TrainRecipe, read_recipe
from ayatori.records import AyatoriError, SchemaError
from ayatori.report.look import write_look
from ayatori.serve import make_app
from ayatori.train import settle

RATE = 8000


def tone(hertz: float, seconds: float = 1.0, rate: int = RATE, loud: float = 0.3) -> np.ndarray:
    return loud * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def noise(seconds: float = 1.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).normal(size=round(seconds * rate))


def voices(folder: Path, rows: int = 12, seconds: float = 0.5) -> Path:
    """Low and high tones of other pitches, in noise: a folder for each."""
    chance = np.random.default_rng(0)
    for name, hertz in (("low", 300), ("high", 1500)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for row in range(rows):
            sound = tone(hertz * chance.uniform(0.8, 1.25), seconds) + 0.1 * noise(seconds, seed=row)
            soundfile.write(folder / name / f"{name} {row}.wav", sound, RATE)
    return folder


@given(hertz=st.floats(150, 3500), rate=st.sampled_from([8000, 11025, 22050, 44100, 48000]))
@settings(max_examples=30, deadline=None)
def test_a_tone_shines_in_the_row_of_its_pitch(hertz: float, rate: int) -> None:
    picture = ayatori.spectrogram(tone(hertz, 1.0, rate), rate, 64, 1.0, 4000.0)
    share = np.log10(1 + hertz / 700) / np.log10(1 + 4000 / 700)
    row = 64 - share * 65  # row 0 is the highest of 64 pitches between 0 and 65 steps
    assert np.abs(picture[:, 8:56].argmax(0) - row).max() <= 1.01
    assert picture.max() == 255


def test_each_pixel_is_the_mean_power_of_its_windows_and_its_triangle() -> None:
    side, seconds, hertz, rate = 8, 0.2, 3000.0, 8000
    samples = noise(0.2) + tone(700, 0.2)
    samples = (samples - samples.mean()).astype(np.float32).astype(np.float64)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + hertz / 700), side + 2) / 2595) - 1)
    length, several = 256, 3  # 32 ms; 25 ms are three steps of at most 10 ms
    power = np.zeros((side, side))
    for column in range(side):
        for step in range(several):
            start = round((column * several + step + 0.5) * seconds / side / several * rate) - length // 2
            window = np.array(
                [samples[t] if 0 <= t < len(samples) else 0.0 for t in range(start, start + length)]
            )
            spectrum = np.abs(np.fft.rfft(window * np.hanning(length), 512)) ** 2
            for pitch in range(side):
                weights = []
                for place in range(257):
                    frequency, (low, middle, high) = place * rate / 512, edges[pitch : pitch + 3]
                    up, down = (
                        (frequency - middle) / (middle - low) + 1,
                        (middle - frequency) / (high - middle) + 1,
                    )
                    weights.append(max(0.0, min(up, down)))
                power[pitch, column] += np.dot(weights, spectrum) / np.sum(weights) / several
    expected = np.clip(10 * np.log10(power / power.max()) / 80 + 1, 0, 1)[::-1] * 255
    found = ayatori.spectrogram(samples, rate, side, seconds, hertz)
    np.testing.assert_allclose(found, expected, atol=0.6)


@given(loud=st.floats(1e-3, 1.0), seed=st.integers(0, 20))
@settings(max_examples=20, deadline=None)
def test_a_softer_recording_gives_the_same_picture(loud: float, seed: int) -> None:
    sound = noise(0.5, seed=seed)
    one, other = (ayatori.spectrogram(factor * sound, RATE, 32) for factor in (1.0, loud))
    assert np.abs(one.astype(int) - other).max() <= 1


def test_another_sampling_rate_gives_nearly_the_same_picture() -> None:
    sound = tone(440) + tone(1200) + noise()
    at_home = ayatori.spectrogram(sound, RATE, 64, 1.0, 3000.0).astype(int)
    finer = ayatori.spectrogram(resample_poly(sound, 441, 80), 44100, 64, 1.0, 3000.0).astype(int)
    assert np.abs(at_home - finer)[:, 1:-1].mean() < 3


def test_silence_is_black_and_a_short_recording_ends_in_it() -> None:
    assert not ayatori.spectrogram(np.zeros(RATE), RATE, 16).any()
    assert not ayatori.spectrogram(np.full(RATE, 0.3), RATE, 16).any()  # a constant is no sound
    picture = ayatori.spectrogram(noise(0.5), RATE, 32, 1.0, 4000.0)
    assert (picture[:, :15] > 100).all()
    assert not picture[:, 18:].any()


def test_pitches_above_what_a_recording_holds_stay_silent() -> None:
    picture = ayatori.spectrogram(noise(), RATE, 64, 1.0, 16_000.0)
    highest = 65 * np.log10(1 + 4000 / 700) / np.log10(1 + 16_000 / 700)
    assert not picture[: int(63 - highest)].any()
    assert (picture[int(66 - highest) :] > 50).all()


@pytest.mark.parametrize(
    ("ending", "subtype"),
    [
        *(("wav", kind) for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW")),
        *(
            ("flac", "PCM_16"),
            ("aiff", "PCM_16"),
            ("ogg", "VORBIS"),
            ("ogg", "OPUS"),
            ("mp3", "MPEG_LAYER_III"),
        ),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_gives_nearly_the_same_picture(
    tmp_path: Path, ending: str, subtype: str, channels: int
) -> None:
    sound = tone(440, loud=0.4) + 0.3 * noise()
    path = tmp_path / f"é 音.{ending}"
    soundfile.write(path, np.stack([sound] * channels, 1), RATE, subtype=subtype)
    found = ayatori.hear(str(path), 32, 1.0, 3000.0).astype(int)
    expected = ayatori.spectrogram(sound, RATE, 32, 1.0, 3000.0).astype(int)
    loud = expected > 128
    assert np.abs(found - expected)[loud].mean() < 8


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_of_a_long_recording_the_loudest_part_is_heard(tmp_path: Path, ending: str) -> None:
    sound = 0.01 * noise(60.0)
    sound[41 * RATE : 43 * RATE] += tone(1000, 2.0)
    soundfile.write(tmp_path / f"long.{ending}", sound, RATE)
    samples, rate = read_sound(tmp_path / f"long.{ending}", 2.0)
    assert (len(samples), rate) == (2 * RATE, RATE)
    heard = np.abs(samples) > 0.02
    assert heard.mean() > 0.7  # to an eighth of the part


def test_what_is_heard_is_decided_by_the_development_rows_alone(tmp_path: Path) -> None:
    train, test = voices(tmp_path / "train"), voices(tmp_path / "test", rows=3, seconds=5.0)
    for path in test.rglob("*.wav"):
        soundfile.write(path, noise(5.0, 48_000), 48_000)
    alone, both = load(train), load(train, test=test)
    assert (alone.schema.sound_seconds, alone.schema.sound_hertz) == (0.5, 4000.0)
    assert both.schema == alone.schema
    assert np.array_equal(both.inputs["image"][:24], alone.inputs["image"])


def test_broken_recordings_are_named_and_skipped_or_refused(tmp_path: Path) -> None:
    folder = voices(tmp_path / "données d'été")
    whole = (folder / "low" / "low 0.wav").read_bytes()
    made = {
        "empty.wav": b"",
        "text.mp3": b"hello",
        "stub.wav": whole[:20],
        "other.wav": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }
    for name, content in made.items():
        (folder / "low" / name).write_bytes(content)
    soundfile.write(folder / "low" / "nothing.wav", np.zeros(0), RATE)
    soundfile.write(folder / "low" / "gap.wav", np.full(100, np.nan), RATE, subtype="FLOAT")
    soundfile.write(folder / "low" / "raw.wav", noise(0.1), RATE, format="AU")
    dataset = load(folder)
    assert len(dataset) == 24
    said = " ".join(dataset.notes)
    assert "7 broken recordings are skipped" in said
    for words in ("empty.wav' (empty file)", "gap.wav' (it holds values that are no numbers)", "and 2 more"):
        assert words in said
    with pytest.raises(AyatoriError, match="every recording must be readable, however 7 of them"):
        load(folder, recipe=DataRecipe(strict=True))


def test_the_reader_of_mp3_is_silent_and_standard_error_is_as_before(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.mp3", noise(3.0), RATE)
    (tmp_path / "odd.mp3").write_bytes((tmp_path / "a.mp3").read_bytes() + b"xyz" * 500)
    code = (
        "import sys, ayatori\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n"
        "    list(pool.map(lambda _: ayatori.hear(sys.argv[1], 16, 3.0, 4000.0), range(20)))\n"
        "print('still here', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "odd.mp3")], capture_output=True, text=True, check=True
    )
    assert done.stderr == "still here\n"


def test_pictures_among_recordings_are_left_out_and_said(tmp_path: Path) -> None:
    folder = voices(tmp_path)
    (folder / "low" / "cover.jpg").write_bytes(b"x")
    dataset = load(folder)
    assert dataset.schema.kind == "recordings"
    assert "left out: pictures among recordings, 1 of 25 files" in dataset.notes


@pytest.mark.parametrize("ending", ["", ".wav"])
def test_a_table_may_name_recordings_and_whom_they_are_of(tmp_path: Path, ending: str) -> None:
    voices(tmp_path / "sounds")
    files = sorted((tmp_path / "sounds").rglob("*.wav"))
    for path in files:
        os.replace(path, tmp_path / "sounds" / path.name)
    files = [tmp_path / "sounds" / path.name for path in files]
    names = [f"{path.stem}{ending}" for path in files]
    frame = pd.DataFrame(
        {"clip": names, "pitch": np.linspace(0, 1, 24), "who": [f"s{i % 6}" for i in range(24)]}
    )
    frame.to_csv(tmp_path / "clips.csv", index=False)
    dataset = load(tmp_path / "clips.csv", recipe=DataRecipe(target="pitch", groups="who"))
    assert (dataset.task, len(set(dataset.groups.tolist()))) == ("regression", 6)  # type: ignore[union-attr]
    expected = [ayatori.hear(str(path), 64, 0.5, 4000.0) for path in files]
    assert np.array_equal(dataset.inputs["image"][:, 0], expected)


def test_new_recordings_are_read_as_those_learned_from(tmp_path: Path) -> None:
    schema = load(voices(tmp_path / "old"), recipe=DataRecipe(size=32, sound_seconds=0.3)).schema
    new = tmp_path / "new"
    new.mkdir()
    soundfile.write(new / "a.flac", tone(500, 2.0, 44_100), 44_100)
    expected = ayatori.hear(str(new / "a.flac"), 32, 0.3, 4000.0)
    for data in (new, new / "a.flac"):
        assert np.array_equal(load_like(data, schema).inputs["image"][0, 0], expected)
        (block,) = read_blocks(data, schema)
        assert np.array_equal(block.inputs["image"][0, 0], expected)
    (new / "a.flac").write_bytes(b"no sound")
    with pytest.raises(AyatoriError, match="every recording must be readable"):
        load_like(new, schema)
    with pytest.raises(SchemaError, match="must be recordings like those"):
        list(read_blocks(pd.DataFrame({"a": [1.0]}), schema))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sound_seconds": 0.01}, "sound_seconds must be between"),
        ({"sound_hertz": 1e7}, "sound_hertz must be between"),
        ({"size": 2}, "size must be between"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, options: dict[str, float], words: str) -> None:
    with pytest.raises(AyatoriError, match=words):
        load(voices(tmp_path, rows=2), recipe=DataRecipe(**options))  # type: ignore[arg-type]


def test_settings_of_sound_are_refused_for_pictures(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name / "x.png")
    with pytest.raises(AyatoriError, match="for recordings, however these are pictures"):
        load(tmp_path, recipe=DataRecipe(sound_seconds=1.0))


def test_what_cannot_be_heard_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(UnheardError, match="No such file"):
        ayatori.hear(str(tmp_path / "none.wav"), 16, 1.0, 4000.0)


def test_sounds_are_never_mirrored_by_what_is_chosen_for_them(tmp_path: Path) -> None:
    dataset = load(voices(tmp_path))
    plan = ayatori.make_plan(dataset, PlanRecipe(folds=2))
    chosen = settle(Recipe(), dataset, plan).train.augment
    compared = settle(Recipe(train=TrainRecipe(augment="auto")), dataset, plan).train.augment
    assert (chosen, compared) == ("sound", "none,light,sound")
    for name in compared.split(","):
        assert not augment(name).changes.flip
        assert not augment(name).changes.upside_down


def test_a_run_on_recordings_goes_from_the_folder_to_a_page_that_plays_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = voices(tmp_path / "voices", rows=20), tmp_path / "run"
    # some labels are wrong, so that the page has mistakes to show
    for row in range(3):
        os.replace(folder / "low" / f"low {row}.wav", folder / "high" / f"wrong {row}.wav")
    command(monkeypatch, "run", folder, "--folds", "2", "--epochs", "3", "--size", "16", "--out", run)
    said = capsys.readouterr().out
    assert "recordings, as pictures of 16 x 16" in said
    assert "recordings of 0.5 s are heard for 0.5 s, up to 4,000 Hz, as 16 x 16 pixels" in said
    page = (run / "report.html").read_text()
    assert "recordings, seen as pictures of 16 × 16" in page
    played = page.split('src="data:audio/mpeg;base64,')[1:]
    assert played
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(played[0].split('"')[0])))
    assert rate == RATE
    assert 0.4 < len(sound) / rate < 0.8

    command(monkeypatch, "predict", run, folder / "high" / "high 3.wav", "-o", tmp_path / "one.csv")
    command(monkeypatch, "predict", run, folder, "-o", tmp_path / "all.csv")
    one, everything = pd.read_csv(tmp_path / "one.csv"), pd.read_csv(tmp_path / "all.csv").set_index("id")
    assert one["p_high"][0] == pytest.approx(everything["p_high"]["high/high 3.wav"], abs=1e-6)

    with TestClient(make_app(load_model(run), max_rows=10, max_bytes=10**7), "http://127.0.0.1") as client:
        content = (folder / "high" / "high 3.wav").read_bytes()
        asked = [
            client.post("/predict", content=content, headers={"content-type": "audio/wav"}),
            client.post("/predict", json={"recordings": [base64.b64encode(content).decode()]}),
            client.post("/predict", files={"file": ("high 3.wav", content)}),
        ]
        for answer in asked:
            (row,) = answer.json()["rows"]
            assert row["probabilities"]["high"] == pytest.approx(one["p_high"][0], abs=1e-5)
        refused = client.post("/predict", content=b"no sound", headers={"content-type": "audio/wav"})
        assert refused.status_code == 422
        assert "must be a recording" in refused.json()["error"]
        assert client.get("/health").json()["input"] == "recordings"
        assert "accept=audio/*" in client.get("/").text


def test_a_look_plays_the_labels_to_check_and_the_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = voices(tmp_path / "voices", rows=30)
    os.replace(folder / "low" / "low 0.wav", folder / "high" / "wrong.wav")
    shutil.copy(folder / "low" / "low 1.wav", folder / "low" / "again.wav")
    assert command(monkeypatch, "explore", folder, "--out", tmp_path / "look") == 0
    page = write_look(tmp_path / "look").read_text()
    players = re.findall(
        r'<audio controls preload="none" src="data:audio/mpeg;base64,[^"]+" aria-label="([^"]+)"', page
    )
    assert {"high/wrong.wav", "low/again.wav", "low/low 1.wav"} <= set(players)
    shutil.rmtree(folder)  # what is gone is shown as a picture alone
    assert "<audio" not in write_look(tmp_path / "look").read_text()


def test_recordings_of_a_request_may_not_last_for_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ayatori.serve import bodies, files

    schema = load(voices(tmp_path, rows=2)).schema
    monkeypatch.setattr(files, "MINUTES", 0.01)
    content = (tmp_path / "low" / "low 0.wav").read_bytes()
    limits = bodies.Limits(rows=10, bytes=10**7)
    assert len(bodies.read("picture", [bodies.Upload("a", content)], schema, limits)) == 1
    with pytest.raises(bodies.RequestError, match="must last at most") as caught:
        bodies.read("picture", [bodies.Upload("a", content)] * 2, schema, limits)
    assert caught.value.status == 413


def test_bad_settings_end_the_command_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = voices(tmp_path / "voices", rows=2)
    assert command(monkeypatch, "run", folder, "--sound-seconds", "-1", "--out", tmp_path / "run") == 2
    assert "sound_seconds must be between 0.05 and 600" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_recipe_of_a_run_repeats_what_was_heard(tmp_path: Path) -> None:
    folder = voices(tmp_path / "voices")
    recipe = Recipe(
        data=DataRecipe(size=16, sound_seconds=0.25, sound_hertz=2000.0), train=TrainRecipe(epochs=2)
    )
    result = ayatori.run(folder, recipe, out=tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "data.json").read_text())["schema"]
    assert (facts["kind"], facts["sound_seconds"], facts["sound_hertz"]) == ("recordings", 0.25, 2000.0)
    again = ayatori.run(folder, read_recipe(tmp_path / "run" / "recipe.toml"))
    scores = [[(entry.name, entry.scores) for entry in one.leaderboard] for one in (result, again)]
    assert scores[0] == scores[1]


def test_a_machine_without_the_library_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = voices(tmp_path, rows=2)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(
        AyatoriError, match="recordings need the package soundfile and its library libsndfile"
    ):
        load(folder)


def test_recordings_that_hold_fewer_pitches_than_are_heard_are_counted(tmp_path: Path) -> None:
    folder = voices(tmp_path)
    assert "hears all alike" not in " ".join(load(folder).notes)
    soundfile.write(folder / "low" / "old.wav", noise(0.5, 4000), 4000)
    said = " ".join(load(folder, recipe=DataRecipe(sound_hertz=4000)).notes)
    assert "; 1 holds no pitch above 2,000 Hz (--sound-hertz 2000 hears all alike)" in said


def test_a_folder_of_broken_recordings_is_refused_with_a_reason(tmp_path: Path) -> None:
    for path in voices(tmp_path, rows=3).rglob("*.wav"):
        path.write_bytes(b"")
    with pytest.raises(AyatoriError, match=r"high 0\.wav' is not \(empty file\), nor are 5 others; mend"):
        load(tmp_path)


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_a_damaged_sampling_rate_is_no_reason_to_run_out_of_memory(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise(0.1), RATE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(UnheardError, match="its sampling rate is"):
        ayatori.hear(str(tmp_path / "a.wav"), 16, 1.0, 4000.0)


def test_a_finer_cut_of_the_work_gives_the_same_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = noise(1.0) + tone(500)
    whole = ayatori.spectrogram(sound, RATE)
    monkeypatch.setattr("ayatori.data.sounds._VALUES", 1000)
    assert np.abs(whole.astype(int) - ayatori.spectrogram(sound, RATE)).max() <= 1
