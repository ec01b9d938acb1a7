"""The commands. Everything heavy is imported inside them, so that --help answers at once."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

import ayatori
from ayatori.archives import existing
from ayatori.errors import AyatoriError, plain
from ayatori.look_options import ExploreOptions
from ayatori.options import OUT, RunOptions, free_folder, recipe_of, sentence
from ayatori.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np

    from ayatori.run import Result

app = App(
    name="ayatori",
    help="Can deep learning do this, how well, honestly, and give me the model.",
    version=ayatori.__version__,
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
# looked for before anything heavy is imported
Existing = Annotated[Path, Parameter(validator=lambda _, path: existing(path))]
errors = Console(stderr=True, highlight=False, soft_wrap=True)


@app.command
def demo(*, out: Annotated[Path, OUT] = Path("demo"), seed: int = 0) -> None:
    """The whole flow on the handwritten digits that ship with scikit-learn, in about a minute.

    Parameters
    ----------
    out
        Where the run folder goes; an earlier demo in it is replaced.
    seed
        Every random number follows from it.
    """
    from sklearn.datasets import load_digits

    from ayatori.run import run as run_flow
    from ayatori.show import Terminal

    if (out / "DONE").exists() or (out / "recipe.toml").exists():
        import shutil

        shutil.rmtree(out)
    digits = load_digits()
    pictures = (digits.images[:, None] * (255 / 16)).round().astype("uint8")
    with Terminal() as show:
        result = run_flow(pictures, Recipe(seed=seed), out=out, y=digits.target, show=show, name="digits")
        _finish(result, out, show)


@app.command
def explore(
    data: Existing,
    /,
    options: ExploreOptions = ExploreOptions(),  # noqa: B008 (frozen)
    *,
    out: Annotated[Path | None, OUT] = None,
    features: Path | None = None,
    quiet: bool = False,
    json: bool = False,
) -> None:
    """Look first: what to expect of a network, what the data allow, what is wrong with them -> explore.html.

    Parameters
    ----------
    data
        As for run; the rows that run would seal keep their labels to themselves.
    out
        Where explore.html goes; by default runs/NAME-explored.
    features
        A .npy file with numbers of your own for each row, such as a pretrained network's.
    quiet
        Print only the verdict.
    json
        Print explore.json instead.
    """
    recipe = recipe_of(options)

    from ayatori.aside import second_process

    with second_process():
        from ayatori.explore import explore as look_at
        from ayatori.report.look import write_look
        from ayatori.run import Event
        from ayatori.show import Terminal
        from ayatori.store import RunFolder

        out = out or free_folder(data, "-explored")
        own = None if features is None else _numbers(features)
        with Terminal(quiet=quiet or json) as show:
            look = look_at(
                str(data),
                recipe=recipe,
                features=own,
                show=lambda text, share: show(Event("explore", text, share)),
            )
            RunFolder.of_look(out, look)
            page = write_look(out)
            if json:
                _print((out / "explore.json").read_text(encoding="utf-8").rstrip())
            else:
                show.look(look, page)


@app.command
def run(
    data: Existing,
    /,
    options: RunOptions = RunOptions(),  # noqa: B008 (frozen)
    *,
    out: Annotated[Path | None, OUT] = None,
    log: str = "",
    quiet: bool = False,
    json: bool = False,
) -> None:
    """From a table or a folder of pictures, recordings, scans or texts to networks with honest scores.

    Parameters
    ----------
    data
        A CSV or Parquet table, a folder with one subfolder of pictures, recordings, scans or texts per class,
        a CSV of their paths and labels, or an .npz with X and y.
    out
        Where the run folder goes; by default runs/NAME.
    log
        tensorboard or mlflow, or both with a comma between: losses while it goes, then figures and files.
    quiet
        Print only the last lines.
    json
        Print result.json instead.
    """
    recipe = recipe_of(options)

    from ayatori.aside import second_process

    with second_process() if recipe.explore.look else contextlib.nullcontext():
        from ayatori.log import ending, finish, heard, logs
        from ayatori.run import run as run_flow
        from ayatori.show import Terminal

        out = out or free_folder(data)
        told = logs(log, out)
        with Terminal(quiet=quiet or json) as show, ending(told):
            result = run_flow(str(data), recipe, out=out, show=heard(show, told))
            _finish(result, out, show, json)
            finish(told, result, out)


@app.command
def augment(
    data: Existing,
    /,
    *,
    augment: str = "standard",
    out: Annotated[Path, OUT] = Path("augment.html"),
    target: str | None = None,
    size: int | None = None,
    series: str | None = None,
    seed: int = 0,
) -> None:
    """See what an augmentation does to pictures or series, and whether it leads pictures to other classes.

    Parameters
    ----------
    data
        Pictures, recordings, scans or series, as for run.
    augment
        light, digits, sound, standard, strong, random, a TOML file, or package:name of your own.
    out
        Where the page goes.
    target
        The column of classes, where data is a table of paths.
    size
        Side of the square pictures in pixels, or of scans in voxels.
    series
        "row", or the column that names the series, as for run.
    seed
        Every random number follows from it.
    """
    from ayatori.augment import resolve
    from ayatori.data import load
    from ayatori.explore.varied import vary_some
    from ayatori.recipe import DataRecipe
    from ayatori.report import write_sheet

    how = resolve(augment)
    dataset = load(str(data), recipe=DataRecipe(target=target or "", size=size or 0, series=series or ""))
    if not dataset.inputs.keys() & {"image", "series"}:
        raise AyatoriError(f"there must be pictures or series to look at, however '{data}' holds none")
    varied = vary_some(dataset, None, how, seed)
    if varied.warning:
        _print(f"careful: {varied.warning}")
    _print(f"{write_sheet(out, data.resolve().stem, augment, varied)}")


@app.command
def resume(run: Existing, /, *, quiet: bool = False, json: bool = False) -> None:
    """Go on where a killed run stopped; the result is that of an unbroken run.

    Parameters
    ----------
    run
        The run folder.
    quiet
        Print only the last lines.
    json
        Print result.json instead.
    """
    from ayatori.run import resume as resume_flow
    from ayatori.show import Terminal

    if (run / "DONE").exists():
        _print(f"{run} is complete: nothing to resume")
        return
    with Terminal(quiet=quiet or json) as show:
        result = resume_flow(run, show=show)
        _finish(result, run, show, json)


@app.command
def predict(
    run: Existing,
    data: Existing,
    /,
    *,
    out: Annotated[Path, OUT],
    like: Path | None = None,
    net: str | None = None,
    device: str = "auto",
) -> None:
    """Predict new rows, however many, with a run's model: ids, labels and probabilities as CSV.

    Parameters
    ----------
    run
        The run folder, or its model folder.
    data
        New rows: of the kind that the model was trained on; a target is not needed.
    out
        The CSV to write.
    like
        A sample submission, whose columns, ids and order are followed.
    net
        package:factory, where the run had a network of your own.
    device
        cpu, cuda or mps; by default the fastest there is.
    """
    import pandas as pd

    from ayatori.model import id_column, read_sample, submission
    from ayatori.model_files import load_model
    from ayatori.run import Event
    from ayatori.show import Terminal
    from ayatori.store import new_file, write_csv

    new_file(out)
    model = load_model(run, net, device)
    sample = None if like is None else read_sample(like)
    notes: tuple[str, ...] = ()

    def tables() -> Iterator[pd.DataFrame]:
        nonlocal notes
        ids = "" if sample is None else id_column(sample, data, model.schema)
        for block in model.blocks(str(data), ids, lambda stage, share: show(Event(stage, share=share))):
            notes = block.notes
            yield model.predict_table(block)

    with Terminal(quiet=not sys.stdout.isatty()) as show:
        if sample is None:
            rows = write_csv(out, tables())
        else:  # its order is another: all predictions are needed at once
            table = pd.concat([part for part in tables() if len(part)], ignore_index=True)
            rows = write_csv(out, [submission(table, sample, model.schema)])
    for note in notes:
        _print(f"  {note}")
    _print(f"{rows} row{'s' * (rows != 1)} -> {out}")


@app.command
def export(
    run: Existing, /, *, onnx: Path | None = None, torch: Path | None = None, net: str | None = None
) -> None:
    """Write a run's model as one file for other programs, and compare what it says with the model.

    Parameters
    ----------
    run
        The run folder, its model folder, or its distilled folder.
    onnx
        The ONNX file to write (opset 18): raw values in, probabilities and labels out.
    torch
        The .pt2 file to write: a program that torch runs alone, by torch.export.load.
    net
        package:factory, where the run had a network of your own.
    """
    if onnx is None and torch is None:
        raise AyatoriError("export must know what to write, however nothing is named; use --onnx model.onnx")

    from ayatori.export import OPSET, to_onnx, to_torch
    from ayatori.model_files import load_model

    model = load_model(run, net, "cpu")
    written = [] if onnx is None else [(to_onnx(model, onnx), f"ONNX, opset {OPSET}")]
    written += [] if torch is None else [(to_torch(model, torch), "for torch alone")]
    for file, kind in written:
        size = file.path.stat().st_size / 1e6
        _print(f"{model.name} -> {file.path}  ({kind}, {size:.1f} MB; agrees to {file.gap:.0e})")
        for note in file.notes:
            _print(f"  {note}")


@app.command
def serve(
    run: Existing,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    max_rows: int = 1000,
    max_megabytes: int = 32,
    net: str | None = None,
    device: str = "auto",
) -> None:
    """Try a run's model out in the browser, or from programs of this machine, over HTTP.

    Parameters
    ----------
    run
        The run folder, its model folder, or its distilled folder.
    host
        Where to listen; with any other address than this machine's own, everybody there may ask.
    port
        The port; 0 takes a free one.
    max_rows
        Rows of a request, at most.
    max_megabytes
        Size of a request, at most.
    net
        package:factory, where the run had a network of your own.
    device
        cpu, cuda or mps; by default the fastest there is.
    """
    from ayatori.serve import serve as serve_model

    serve_model(run, host, port, net=net, device=device, max_rows=max_rows, max_megabytes=max_megabytes)


@app.command
def report(run: Path, /) -> None:
    """Write a run's report.html again.

    Parameters
    ----------
    run
        The run folder.
    """
    from ayatori.report import write_report

    _print(f"{write_report(run)}")


@app.command
def runs(folder: Path = Path("runs"), /, *, json: bool = False) -> None:
    """The runs in a folder, oldest first: data, the figure of what was chosen, time.

    Parameters
    ----------
    folder
        Where the run folders are.
    json
        Print the same as JSON.
    """
    from ayatori.report.runs import list_runs

    lines = list_runs(folder)
    if json:
        _print_json(lines)
        return
    from ayatori.show import runs_table, terminal

    terminal().print(runs_table(lines))


@app.command
def compare(
    first: Path,
    second: Path,
    /,
    *more: Path,
    out: Annotated[Path | None, OUT] = None,
    json: bool = False,
) -> None:
    """Runs on the same data, on the rows that all were judged by: figures, and differences to the first.

    Parameters
    ----------
    first
        A run folder, with which the others are compared.
    second
        Another one.
    more
        And more.
    out
        A page to write, with what was set otherwise in them.
    json
        Print the same as JSON.
    """
    from ayatori.report.runs import compare_runs, write_comparison

    found = compare_runs([first, second, *more])
    page = None if out is None else write_comparison([first, second, *more], out)
    if json:
        _print_json(found)
        return
    from ayatori.show import compared_table, terminal

    for board in found["boards"]:
        terminal().print(compared_table(board, found["task"]))
        _print("")
    if page is not None:
        _print(f"page  {page}")


def _print_json(values: Any) -> None:
    import json

    _print(json.dumps(values, indent=2, default=str).replace("NaN", "null"))


def _finish(result: Result, out: Path, show: Any, json: bool = False) -> None:
    from ayatori.report import write_report
    from ayatori.report.members import read_json

    page = write_report(out)
    if json:
        _print((out / "result.json").read_text(encoding="utf-8").rstrip())
    else:
        show.summary(result, page, read_json(out / "report.json")["answer"])


def _numbers(path: Path) -> np.ndarray:
    """The array in a .npy file."""
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        what = "it is something else" if path.exists() else "it does not exist"
        raise AyatoriError(f"'{path}' must be a .npy file of numbers, however {what}") from None


def _print(text: str) -> None:
    print(plain(text))


def _settle_process() -> None:
    """What makes training faster, and is ours to say because the process is ours (see dev/LOG.md)."""
    # threads that spin while they wait make a busy machine ten times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """The command ``ayatori``: exit code 0, 2 for what the user can mend, 130 after Ctrl-C."""
    _settle_process()
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except (AyatoriError, CycloptsError) as error:
        errors.print(plain(f"ayatori: {sentence(error)}"), style="bold", markup=False)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        errors.print(plain(f"\nayatori: stopped{f'; {stop}' if str(stop) else ''}"), markup=False)
        sys.exit(130)
    except BrokenPipeError:
        # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
