"""The options of ``ayatori explore``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ExploreOptions:
    """What can be said of the data, and what is asked of them; as for run.

    Parameters
    ----------
    target
        The column to predict (several, with commas; a name that has one in quotes); by default the last one.
        Of a folder without a subfolder per class, the part of the paths that tells the label (1: cat in
        cat_7.png), or a pattern.
    target_accuracy
        The accuracy (R2 for numbers) that you need: can it be reached?
    test
        A file or folder of test rows, or the share of rows that run would seal (0.2); 0 for none.
    folds
        The number of folds that run would have (5); fewer where there are few groups.
    task
        classification, multilabel or regression, when the target does not tell.
    log_target
        Learn the logarithms of the numbers to predict, where a few are far larger than the others.
    groups
        Column whose rows stay together, such as a patient; of a folder, the part of the paths that tells whom
        a file is of (2: tom in cat/tom_1.png), or a pattern.
    time
        Column that orders the rows: earlier ones train, later ones are scored. Of a folder, the part of the
        paths that tells, as for groups.
    ids
        Column that names the rows.
    drop
        Columns to leave out, with commas.
    texts
        Columns to read as texts, with commas, however short they are; longer ones are found.
    rarest
        Leave out classes of fewer rows, the test's too (0: none).
    encoding
        Of a table that is not UTF-8, such as cp932 or cp1252.
    pictures
        Folder of the files that a column of the table names, with or without their ending.
    beside
        Columns of the table to learn from beside the files that it names, with commas; "all": all others.
    size
        Side of the square pictures in pixels, or of scans in voxels.
    sound_seconds
        Of each recording that are heard; decided from their lengths.
    sound_hertz
        The highest pitch that is heard; decided from their sampling rates.
    scan_window
        Values of scans that are told apart, LOW,HIGH; own: each scan's own; decided from the scans.
    scan_mm
        Size of the voxels that scans are read at, in millimetres; decided from the scans.
    series
        Measurements over time: "row", where each row of the table is a series, or the column that names the
        series of each row, a step.
    series_steps
        Longer series are averaged down to so many steps; 2048.
    strict
        Refuse a broken picture, recording or scan instead of skipping it.
    pretrained
        A network that has learned elsewhere, whose features of each row are looked at too; as for run.
    seed
        Every random number follows from it (0).
    recipe
        A TOML file of settings, such as the recipe.toml of a run; options given here win.
    """

    target: str | None = None
    target_accuracy: float | None = None
    test: str | None = None
    folds: int | None = None
    task: Literal["classification", "multilabel", "regression"] | None = None
    log_target: Annotated[bool | None, Parameter(negative=())] = None
    groups: str | None = None
    time: str | None = None
    ids: str | None = None
    drop: str | None = None
    texts: str | None = None
    rarest: int | None = None
    encoding: str | None = None
    pictures: str | None = None
    beside: str | None = None
    size: int | None = None
    sound_seconds: float | None = None
    sound_hertz: float | None = None
    scan_window: str | None = None
    scan_mm: float | None = None
    series: str | None = None
    series_steps: int | None = None
    strict: Annotated[bool | None, Parameter(negative=())] = None
    pretrained: str | None = None
    seed: int | None = None
    recipe: Path | None = None
