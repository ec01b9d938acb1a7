"""Stage 1f. A recording -> a picture of its sound: time to the right, pitch upwards, loudness as brightness.

Loudness is in decibels below the loudest, pitch in mel, as the ear tells both apart. Recordings of another
sampling rate give the same picture, and so do louder and softer ones.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.fft

from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError

SIDE = 64  # pixels of a picture, where nobody says otherwise: so many moments, so many pitches
RANGE = 80.0  # decibels below the loudest pixel that are still told apart from silence
SILENT = 1e-12  # power that rounding may leave of a constant
WINDOW, STEP = 0.032, 0.010  # seconds that one spectrum looks at, and most between two of them
MOST_SECONDS = 5.0  # of a recording that are heard, where nobody says otherwise
MOST_HOURS = 12  # longer recordings are refused
RATES = (10, 1_000_000)  # samples a second; what is beyond is a damaged header
FORMATS = ("WAV", "WAVEX", "W64", "RF64", "FLAC", "OGG", "MP3", "AIFF", "CAF")  # whatever the ending is
_SAMPLE = 512  # so many recordings decide what is heard
_VALUES = 1 << 21  # of windows that are looked at in one go
_BLOCK = 1 << 18  # samples read at once while the loudest part is sought
_turn = threading.Lock()
_readers, _stderr = 0, -1  # how many read quietly, and where standard error went before


class UnheardError(AyatoriError):
    """A file that is no recording, or a broken one; says why."""


def choose_sound(files: Sequence[str], recipe: DataRecipe) -> tuple[int, float, float, str]:
    """Side of the pictures, seconds and highest pitch (hertz) heard, from a sample of ``files``; in words."""
    if recipe.sound_seconds and not 0.05 <= recipe.sound_seconds <= 600:
        raise AyatoriError(
            f"sound_seconds must be between 0.05 and 600, however sound_seconds={recipe.sound_seconds:g}"
        )
    if recipe.sound_hertz and not 100 <= recipe.sound_hertz <= 200_000:
        raise AyatoriError(
            f"sound_hertz must be between 100 and 200000, however sound_hertz={recipe.sound_hertz:g}"
        )
    lengths, rates, reasons = [], [], []
    for file in files[:: max(1, len(files) // _SAMPLE)]:
        try:
            length, rate = measure(file)
            lengths.append(length)
            rates.append(rate)
        except UnheardError as error:  # those of a few are named when all are read
            reasons.append(str(error))
    if not lengths:
        found = f"'{files[0]}' is not ({reasons[0]})"
        found += f", nor are {len(reasons) - 1} others" if len(reasons) > 1 else ""
        raise AyatoriError(f"recordings must be readable, however {found}; mend or remove them")
    usual = min(MOST_SECONDS, float(np.quantile(lengths, 0.95)))
    seconds = recipe.sound_seconds or max(0.05, float(f"{usual:.2g}"))
    # nearly all of them hold pitches up to half their rate
    hertz = recipe.sound_hertz or max(100.0, float(np.quantile(rates, 0.05, method="lower")) / 2)
    side = recipe.size or recipe.seen or SIDE
    span = " to ".join(dict.fromkeys(f"{length:.2g}" for length in (min(lengths), max(lengths))))
    found = f"recordings of {span} s are heard for {seconds:g} s, up to {hertz:,.0f} Hz"
    found += f", as {side} x {side} pixels"
    if min(lengths) < seconds - 0.005:
        found += "; shorter ones end in silence"
    if max(lengths) > seconds + 0.005:
        found += "; longer ones are heard where they are loudest"
    if lower := [rate for rate in rates if rate / 2 < hertz - 0.5]:
        what = "1 holds" if len(lower) == 1 else f"{len(lower)} of {len(rates)} hold"
        most = min(lower) / 2
        found += f"; {what} no pitch above {most:,.0f} Hz (--sound-hertz {most:g} hears all alike)"
    return side, seconds, hertz, found


def hear(file: str, side: int, seconds: float, hertz: float) -> np.ndarray:
    """The picture (side, side) uint8 of a sound file, as networks see it: ``spectrogram`` of ``read_sound``.

    Raises UnheardError.
    """
    samples, rate = read_sound(file, seconds)
    return spectrogram(samples, rate, side, seconds, hertz)


def read_sound(file: str | Path, seconds: float) -> tuple[np.ndarray, int]:
    """At most so many seconds of a sound file, where it is loudest: samples (t,) float32, and their rate.

    Raises UnheardError.
    """
    soundfile = _reader()
    try:
        with _quiet(file), soundfile.SoundFile(file) as sound:
            _check(sound)
            count = max(1, round(seconds * sound.samplerate))
            sound.seek(_loudest(sound, count) if sound.frames > count else 0)
            samples = _mono(sound.read(count, dtype="float32", always_2d=True))
            rate = sound.samplerate
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise UnheardError(_reason(file, error)) from None
    if not len(samples):
        raise UnheardError("it ends before its sound begins")
    if not np.isfinite(samples).all():
        raise UnheardError("it holds values that are no numbers")
    return samples, rate


def spectrogram(
    samples: np.ndarray, rate: float, side: int = SIDE, seconds: float = 0.0, hertz: float = 0.0
) -> np.ndarray:
    """Samples (t,) at ``rate`` a second -> (side, side) uint8: 255 is the loudest, 0 80 dB below.

    Of the first ``seconds`` (0: all), and of silence after them; up to ``hertz`` (0: half of ``rate``).

    Row 0 is the highest of ``side`` pitches between 0 and ``hertz``, equally far apart in mel
    (2595 log10(1 + f / 700), O'Shaughnessy 1987); each is the mean power of a triangle of frequencies. Column
    0 is the beginning of ``side`` equal parts of ``seconds``; each is the mean of Hann windows in it.

    >>> tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
    >>> picture = spectrogram(tone, 8000)
    >>> picture.shape, int(picture[:, 32].argmax())  # 1000 Hz are 1000 mel of 2146: in the middle
    ((64, 64), 34)
    """
    samples = np.asarray(samples, np.float32)
    samples = samples - samples.mean()
    seconds, hertz = seconds or len(samples) / rate, hertz or rate / 2
    part = seconds / side
    several = max(1, int(np.ceil(part / STEP)))
    length = max(8, round(WINDOW * rate))
    middles = (np.arange(side * several) + 0.5) * part / several
    starts = np.round(middles * rate).astype(np.int64)
    whole = np.zeros(starts[-1] + 2 * length, np.float32)  # silence before and after
    heard = samples[: len(whole) - length]
    whole[length // 2 : length // 2 + len(heard)] = heard
    size = scipy.fft.next_fast_len(2 * length, real=True)  # twice as dense as a window tells apart
    windows = np.lib.stride_tricks.sliding_window_view(whole, length)
    hann, triangles = np.hanning(length).astype(np.float32), _triangles(side, size, rate, hertz).T
    found = []
    # all at once may be more than memory holds
    for some in np.array_split(starts, -(-len(starts) * length // _VALUES)):
        found.append(np.square(np.abs(scipy.fft.rfft(windows[some] * hann, size, axis=1))) @ triangles)
    power = np.concatenate(found).reshape(side, several, side).mean(1).T[::-1]
    loudest = power.max()
    if loudest <= SILENT:
        return np.zeros((side, side), np.uint8)
    decibels = 10 * np.log10(np.maximum(power / loudest, 10 ** (-RANGE / 10)))
    return np.round((decibels / RANGE + 1) * 255).astype(np.uint8)


@functools.lru_cache(maxsize=16)
def _triangles(side: int, size: int, rate: float, hertz: float) -> np.ndarray:
    """(side, size // 2 + 1) float32: what each frequency counts for each pitch from below; rows add to 1."""
    mel = np.linspace(0, 2595 * np.log10(1 + hertz / 700), side + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    frequencies = np.arange(size // 2 + 1) * rate / size
    narrowest = rate / size  # a triangle holds one frequency at least
    up = (frequencies - centre) / np.maximum(centre - low, narrowest) + 1
    down = (centre - frequencies) / np.maximum(high - centre, narrowest) + 1
    weights = np.clip(np.minimum(up, down), 0, None)
    total = weights.sum(1, keepdims=True)
    # pitches above what the recording holds stay silent
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0).astype(np.float32)


def measure(file: str | BinaryIO) -> tuple[float, int]:
    """Seconds and sampling rate of a sound file. Raises UnheardError."""
    soundfile = _reader()
    try:
        with _quiet(file):
            found = soundfile.info(file)
        _check(found)
    except (soundfile.SoundFileError, OSError, RuntimeError) as error:
        raise UnheardError(_reason(file, error)) from None
    return found.frames / found.samplerate, found.samplerate


def traits_of_sound(file: str) -> dict[str, Any]:
    """How a recording was made; not how long it is, which often belongs to what it holds."""
    with _quiet(file):
        found = _reader().info(file)
    return {
        "sampling rate": found.samplerate,
        "channels": found.channels,
        "format": found.format,
        "coding": found.subtype,
    }


def _reader() -> Any:
    """The package that reads sound files; it comes with ours, but its library may not be there."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise AyatoriError(
            f"recordings need the package soundfile and its library libsndfile, however: {error}; "
            "pip install --force-reinstall soundfile"
        ) from None
    return soundfile


def _check(sound: Any) -> None:
    if sound.format not in FORMATS:
        raise UnheardError("no known kind of recording")
    if not sound.frames:
        raise UnheardError("it holds no sound")
    if not RATES[0] <= sound.samplerate <= RATES[1]:
        raise UnheardError(f"its sampling rate is {sound.samplerate:,} a second")
    if sound.frames > MOST_HOURS * 3600 * sound.samplerate:
        raise UnheardError(f"it lasts more than {MOST_HOURS} hours")


@contextlib.contextmanager
def _quiet(file: str | Path | BinaryIO) -> Iterator[None]:
    """Nothing is written to standard error meanwhile: the reader of MP3 narrates there, past Python."""
    global _readers, _stderr
    if str(file).lower().endswith((".wav", ".flac", ".ogg")):
        yield
        return
    with _turn:
        _readers += 1
        if _readers == 1:
            with contextlib.suppress(OSError):  # it may be closed
                _stderr = os.dup(2)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)
    try:
        yield
    finally:
        with _turn:
            _readers -= 1
            if not _readers and _stderr >= 0:
                os.dup2(_stderr, 2)
                os.close(_stderr)
                _stderr = -1


def _reason(file: str | Path | BinaryIO, error: Exception) -> str:
    if isinstance(file, str | Path):
        try:
            with open(file, "rb") as content:
                if not content.read(1):
                    return "empty file"
        except OSError as refused:
            return str(refused.strerror)
    said = getattr(error, "strerror", None) or str(error).rpartition(": ")[2] or type(error).__name__
    # what is said of a damaged MP3 that is there
    return (
        "no known kind of recording" if said.startswith("File does not") else said.splitlines()[0].rstrip(".")
    )


def _loudest(sound: Any, count: int) -> int:
    """Where the ``count`` samples of most energy begin, to an eighth of their length."""
    step = max(1, count // 8)
    energies: list[float] = []
    rest = np.zeros(0)
    for block in sound.blocks(blocksize=max(step, _BLOCK // step * step), dtype="float32", always_2d=True):
        values = np.concatenate([rest, np.square(_mono(block), dtype=np.float64)])
        whole = len(values) // step * step
        energies += values[:whole].reshape(-1, step).sum(1).tolist()
        rest = values[whole:]
    heard = np.convolve(energies, np.ones(8), "valid") if len(energies) >= 8 else np.zeros(1)
    return min(int(np.argmax(heard)) * step, sound.frames - count)


def _mono(samples: np.ndarray) -> np.ndarray:
    """(t, channels) -> (t,)."""
    return samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
