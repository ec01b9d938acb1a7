"""A new head on frozen EfficientNet-Lite0, five folds of cats and dogs: Ayatori, Lightning, fastai.

Ayatori does the whole job by its command, from files to a run folder, nothing kept from earlier. Rivals run
the same backbone in every epoch of every fold, as they do where it is frozen: one fold of a few pictures is
measured after a warm-up, and scaled by its passes (a picture once through the backbone) to all of them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import AYATORI, fresh_process, machine, say, versions
from PIL import Image
from torch import Tensor, nn

from ayatori.nets.source import find_source

FOLDS, BATCH, RATE, WORKERS = 5, 32, 1e-3, 2


def ayatori(options: argparse.Namespace) -> dict[str, Any]:
    """The command on all pictures, with the exact head that it takes by itself."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["run", str(options.data), "--pretrained", "efficientnet_lite0", "--folds", str(FOLDS)]
        words += ["--test", "0", "--no-look", "--no-advise", "--baselines", "none", "--json"]
        start = time.perf_counter()
        done = subprocess.run(
            [AYATORI, *words, "--out", f"{folder}/run"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={**os.environ, "AYATORI_CACHE": "off"},
        )
        seconds = time.perf_counter() - start
    result = json.loads(done.stdout)
    accuracy = result["leaderboard"][0]["scores"]["accuracy"]
    return {"seconds": seconds, "accuracy": accuracy, "stages": result["seconds"]}


class Photos(torch.utils.data.Dataset):
    """Files as torchvision prepares them: resized, cropped in the middle, (x - 127) / 128."""

    def __init__(self, files: list[Path], labels: list[int]) -> None:
        from torchvision.transforms import v2

        self.files, self.labels = files, labels
        steps = [
            v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(224),
            v2.PILToTensor(),
        ]
        self.prepare = v2.Compose([*steps, v2.ToDtype(torch.float32), v2.Normalize([127.0] * 3, [128.0] * 3)])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.prepare(Image.open(self.files[index]).convert("RGB")), self.labels[index]


def backbone() -> nn.Module:
    parts = nn.Sequential(*find_source("efficientnet_lite0").parts)
    return parts.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def some_photos(options: argparse.Namespace, rows: int) -> tuple[list[Path], list[int], Any]:
    """So many files, half of each class, their labels, and which are held out."""
    kinds = sorted(path for path in options.data.iterdir() if path.is_dir())
    files = [file for kind in kinds for file in sorted(kind.iterdir())[: rows // len(kinds)]]
    labels = [number for number, kind in enumerate(kinds) for _ in range(rows // len(kinds))]
    return files, labels, np.arange(len(files)) % FOLDS == 0


def passes(rows: int, epochs: int) -> float:
    """How often a fold of ``rows`` runs a picture through the backbone."""
    return rows * (epochs * (FOLDS - 1) + 1) / FOLDS


def scaled(options: argparse.Namespace, fit: Any) -> dict[str, Any]:
    fit(*some_photos(options, 2 * BATCH), 1)
    files, labels, held = some_photos(options, options.rows)
    start = time.perf_counter()
    accuracy = fit(files, labels, held, options.epochs)
    measured = time.perf_counter() - start
    each = measured / passes(len(files), options.epochs)
    whole = sum(1 for _ in options.data.rglob("*.jpg"))
    return {
        "seconds": each * FOLDS * passes(whole, options.epochs),
        "measured_seconds": measured,
        "measured_pictures": len(files),
        "milliseconds_a_pass": 1000 * each,
        "accuracy_of_the_measured_fold": accuracy,
    }


def lightning(options: argparse.Namespace) -> dict[str, Any]:
    import lightning.pytorch as pl
    from torch.utils.data import DataLoader

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = backbone(), nn.Linear(1280, 2)

        def on_train_epoch_start(self) -> None:
            self.body.eval()

        def logits(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                seen = self.body(x.contiguous(memory_format=torch.channels_last))
            return self.head(seen.float())

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            return nn.functional.cross_entropy(self.logits(batch[0]), batch[1])

        def predict_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            return (self.logits(batch[0]).argmax(1) == batch[1]).float()

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.head.parameters(), RATE)

    def fit(files: list[Path], labels: list[int], held: Any, epochs: int) -> float:
        learn, judge = (
            Photos([files[i] for i in part], [labels[i] for i in part])
            for part in (np.flatnonzero(~held).tolist(), np.flatnonzero(held).tolist())
        )
        precision: Any = "bf16-mixed" if options.bf16 else "32-true"
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(
            max_epochs=epochs, accelerator="cpu", precision=precision, enable_model_summary=False, **quiet
        )
        module = Module()
        loading: dict[str, Any] = {"num_workers": WORKERS, "persistent_workers": True}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(module, DataLoader(learn, BATCH, shuffle=True, **loading))
            right = trainer.predict(module, DataLoader(judge, BATCH, **loading))
        return torch.cat(right).mean().item()  # type: ignore[arg-type]

    return scaled(options, fit)


def fastai(options: argparse.Namespace) -> dict[str, Any]:
    from fastai.basics import Callback, CancelValidException, CrossEntropyLossFlat, Learner, params
    from fastai.vision import all as vision

    class NoValidation(Callback):
        def before_validate(self) -> None:
            raise CancelValidException

    def fit(files: list[Path], labels: list[int], held: Any, epochs: int) -> float:
        block = vision.DataBlock(
            blocks=(vision.ImageBlock, vision.CategoryBlock([0, 1])),
            get_x=lambda row: files[row],
            get_y=lambda row: labels[row],
            splitter=vision.IndexSplitter(np.flatnonzero(held).tolist()),
            item_tfms=vision.Resize(224),
            batch_tfms=vision.Normalize.from_stats([127 / 255] * 3, [128 / 255] * 3, cuda=False),
        )
        loaders = block.dataloaders(list(range(len(files))), bs=BATCH, num_workers=WORKERS)
        network = nn.Sequential(backbone(), nn.Linear(1280, 2))
        learner = Learner(
            loaders,
            network,
            loss_func=CrossEntropyLossFlat(),
            splitter=lambda whole: [params(whole[0]), params(whole[1])],
            train_bn=False,
        )
        learner.freeze()
        with learner.no_bar(), learner.no_logging():
            learner.fit(epochs, RATE, cbs=[NoValidation()])
            said, truth = learner.get_preds()
        return (said.argmax(1) == truth).float().mean().item()

    return scaled(options, fit)


SIDES = {"ayatori": ayatori, "lightning": lightning, "fastai": fastai}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "data", type=Path, help="a folder with a subfolder of JPEG files for each of two classes"
    )
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=128, help="pictures that the rivals are measured on")
    parser.add_argument("--bf16", action="store_true", help="Lightning in mixed precision")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print("\n" + json.dumps(SIDES[options.side](options)))
        return
    before, found = machine(), {}
    for name in options.sides:
        found[name] = fresh_process("--side", name, threads=options.threads)
        print(f"{name}: {found[name]}", file=sys.stderr)
    ours = found.get("ayatori", {}).get("seconds")
    ratio = {name: ours / side["seconds"] for name, side in found.items() if ours and name != "ayatori"}
    say({"ratio": ratio, "sides": found, "epochs": options.epochs, "folds": FOLDS}, {**before, **versions()})


if __name__ == "__main__":
    main()
