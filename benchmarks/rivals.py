"""One task, and how each library does it: the same network, rows, folds, epochs, batches and optimiser.

Every side takes a Task and gives (n, classes) probabilities of the rows that its networks never saw. Rivals
are written as their own manuals say, without the parts that cost time and are of no use here: no
logger, no progress bar, no checkpoint, no validation while they train. The rows by which Ayatori
stops are left out of everybody's training, so that all learn from the same rows. The learning rate
falls as half a cosine, a step at a time, on every side.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ayatori import load
from ayatori.augment import augment
from ayatori.plan import make_plan
from ayatori.recipe import LossRecipe, NetRecipe, PlanRecipe, Recipe, TrainRecipe
from ayatori.records import SCORE, SEALED, Dataset, Plan
from ayatori.train import predict, settle, train

Fit = Callable[[np.ndarray, np.ndarray, int], Any]  # rows to learn from, rows to judge, number of the fold
WARM_UP_ROWS = 1000
# what all sides do to pictures: Ayatori's settings, and the affine moves of torchvision that match them
WAYS: dict[str, Any] = {
    "none": "none",
    "moved": {"flip": 0.5, "shift": 1 / 12},
    "turned": {"flip": 0.5, "shift": 1 / 12, "turn": 10, "zoom": 0.1},
}
MOVES: dict[str, dict[str, Any]] = {"moved": {"degrees": 0}}
TURNS: dict[str, Any] = {"degrees": 10, "scale": (0.9, 1.1)}


@dataclass(frozen=True)
class Task:
    """What all sides do. ``network(shape, outputs)`` builds the network; ``workers`` load pictures."""

    dataset: Dataset
    plan: Plan
    network: Callable[[tuple[int, ...], int], nn.Module]
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    augment: str = "none"
    workers: int = 0

    @property
    def x(self) -> np.ndarray:
        """(n, p) float32 numbers of a table or (n, c, h, w) uint8 pictures."""
        inputs = self.dataset.inputs
        return inputs["image"] if "image" in inputs else inputs["numbers"].astype(np.float32)

    def build(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return self.network(self.x.shape[1:], len(self.dataset.classes))

    def steps(self, rows: int) -> int:
        """How many batches ``rows`` make in all epochs."""
        return self.epochs * -(-rows // self.batch_size)

    def small(self) -> Self:
        """A few rows, one member a fold, one epoch: to warm up."""
        # a seed of its own: the Plan seals the first rows of the order that its seed gives
        rows = np.random.default_rng([0, 1]).permutation(len(self.dataset))[:WARM_UP_ROWS]
        data, plan = self.dataset, self.plan
        few = dataclasses.replace(
            data,
            inputs={name: values[rows] for name, values in data.inputs.items()},
            target=data.labels[rows],
            ids=data.ids[rows],
        )
        kept = [number for number, column in enumerate(plan.columns) if column.bag == 0]
        columns = tuple(plan.columns[number] for number in kept)
        part = dataclasses.replace(plan, roles=plan.roles[rows][:, kept], columns=columns)
        return dataclasses.replace(self, dataset=few, plan=part, epochs=1)


def read_table(
    path: Path, target: str, rows: int | None = None, test: float = 0.0, strategy: Any = "kfold"
) -> tuple[Dataset, Plan]:
    """A table of numbers with classes, and five folds of its (first) ``rows``; a share ``test`` is sealed."""
    frame = pd.read_csv(path).iloc[:rows]
    dataset = load(frame.drop(columns=target).to_numpy(np.float64), y=frame[target].astype(str).to_numpy())
    return dataset, make_plan(dataset, PlanRecipe(strategy=strategy, folds=5, test=test))


def wide_mlp(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return _mlp(shape[0], 256, outputs)


def narrow_mlp(shape: tuple[int, ...], outputs: int) -> nn.Module:
    return _mlp(shape[0], 64, outputs)


def small_cnn(shape: tuple[int, ...], outputs: int) -> nn.Module:
    """Two convolutions with batch normalisation, 32 and 64 channels, each followed by a pool."""
    channels, height, width = shape
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * (height // 4) * (width // 4), outputs)),
    )


def _mlp(inputs: int, width: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


def settings(task: Task) -> Recipe:
    """Ayatori's recipe of the task; nothing stops a member early."""
    training = TrainRecipe(
        epochs=task.epochs,
        batch_size=task.batch_size,
        learning_rate=task.learning_rate,
        weight_decay=task.weight_decay,
        warmup=0.0,
        beta2=0.999,
        clip=0.0,
        patience=task.epochs + 1,
        augment=WAYS[task.augment],
        device="cpu",
    )
    return Recipe(net=NetRecipe(name=task.network), loss=LossRecipe(label_smoothing=0.0), train=training)


def ayatori(task: Task) -> np.ndarray:
    recipe = settle(settings(task), task.dataset, task.plan)
    members = train(task.dataset, task.plan, recipe)
    return judged(predict(members, task.dataset, task.plan).values, task.plan)


def judged(values: np.ndarray, plan: Plan) -> np.ndarray:
    """(members, n, classes) -> (n, classes): the mean of the members that are scored on a row, NaN for none.

    The sealed rows are scored where there are any, else every member's own fold.
    """
    speaks = (plan.roles == (SEALED if plan.sealed.any() else SCORE)).T[:, :, None]
    number = speaks.sum(axis=0)
    total = np.where(speaks, values, 0).sum(axis=0)
    return np.where(number, total / np.maximum(number, 1), np.nan)


def by_fold(task: Task, fit: Fit) -> np.ndarray:
    """``fit`` learns from a member's training rows and gives the probabilities of its fold."""
    out = np.full((len(task.dataset), len(task.dataset.classes)), np.nan, np.float32)
    for member in range(task.plan.members):
        rows = task.plan.rows(member, SCORE)
        out[rows] = fit(task.plan.train_rows(member), rows, member)
    return out


def standardised(x: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Numbers per column, pixels per channel: mean 0 and standard deviation 1 over the rows ``own``."""
    axes = (0, 2, 3) if x.ndim == 4 else 0
    known = x[own].astype(np.float32)
    mean, spread = known.mean(axis=axes, keepdims=True), known.std(axis=axes, keepdims=True)
    return (x - mean) / np.where(spread > 0, spread, 1)


def plain(task: Task) -> np.ndarray:
    """What a careful engineer writes by hand: all in memory, whole batches indexed and augmented at once."""
    name, vary = ("image" if task.x.ndim == 4 else "numbers"), augment(WAYS[task.augment])
    y, generator = torch.from_numpy(task.dataset.labels), torch.Generator().manual_seed(0)

    def fit(own: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
        x = torch.from_numpy(standardised(task.x, own))
        network = task.build(seed)
        if name == "image":
            x = x.contiguous(memory_format=torch.channels_last)
            network = network.to(memory_format=torch.channels_last)
        optimizer = adamw(network.parameters(), task)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.steps(len(own)))
        known = torch.from_numpy(own)
        for _ in range(task.epochs):
            for index in known[torch.randperm(len(known))].split(task.batch_size):
                logits = network(vary({name: x[index]}, generator)[name])
                loss = nn.functional.cross_entropy(logits, y[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                rates.step()
        network.eval()
        with torch.inference_mode():
            parts = torch.from_numpy(rows).split(1024)
            return torch.cat([network(x[index]).softmax(1) for index in parts]).numpy()

    return by_fold(task, fit)


def adamw(parameters: Any, task: Task) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, task.learning_rate, weight_decay=task.weight_decay, fused=True)


class Pictures(torch.utils.data.Dataset):
    """One picture (c, h, w) and its class at a time, changed by ``transform`` as torchvision does it."""

    def __init__(self, x: np.ndarray, y: np.ndarray, transform: Callable[[Tensor], Tensor]) -> None:
        self.x, self.y, self.transform = torch.from_numpy(x), y, transform

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.x[index]), int(self.y[index])


def pictures(task: Task, own: np.ndarray, rows: np.ndarray) -> tuple[Pictures, Pictures]:
    """The rows ``own``, flipped and moved at random, and ``rows`` as they are, standardised by ``own``."""
    from torchvision.transforms import v2

    known = task.x[own].astype(np.float32) / 255
    mean, spread = known.mean(axis=(0, 2, 3)).tolist(), known.std(axis=(0, 2, 3)).tolist()
    moved = v2.RandomAffine(translate=(1 / 12, 1 / 12), **MOVES.get(task.augment, TURNS))
    chance = [] if task.augment == "none" else [v2.RandomHorizontalFlip(), moved]
    plainly = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, spread)]
    y = task.dataset.labels
    return (
        Pictures(task.x[own], y[own], v2.Compose([*chance, *plainly])),
        Pictures(task.x[rows], y[rows], v2.Compose(plainly)),
    )


def sets(task: Task, own: np.ndarray, rows: np.ndarray) -> tuple[Any, Any]:
    """Two data sets of PyTorch: to learn from and to judge by."""
    if task.x.ndim == 4:
        return pictures(task, own, rows)
    x, y = torch.from_numpy(standardised(task.x, own)), torch.from_numpy(task.dataset.labels)
    return tuple(torch.utils.data.TensorDataset(x[index], y[index]) for index in (own, rows))  # type: ignore[return-value]


def skorch_net(task: Task, rows: int) -> Any:
    """A NeuralNetClassifier that will learn from so many ``rows``."""
    from skorch import NeuralNetClassifier
    from skorch.callbacks import LRScheduler

    cosine = torch.optim.lr_scheduler.CosineAnnealingLR
    falling = LRScheduler(cosine, T_max=task.steps(rows), step_every="batch", event_name=None)
    loading = {"num_workers": task.workers, "persistent_workers": task.workers > 0}
    train = {f"iterator_train__{name}": value for name, value in loading.items()}
    valid = {f"iterator_valid__{name}": value for name, value in loading.items()}
    return NeuralNetClassifier(
        task.network,
        module__shape=task.x.shape[1:],
        module__outputs=len(task.dataset.classes),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=task.weight_decay,
        optimizer__fused=True,
        lr=task.learning_rate,
        max_epochs=task.epochs,
        batch_size=task.batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=[falling],
        verbose=0,
        device="cpu",
        **train,
        **valid,
    )


def skorch(task: Task) -> np.ndarray:
    def fit(own: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        if task.x.ndim == 4:
            learn, judge = pictures(task, own, rows)
            return skorch_net(task, len(own)).fit(learn, y=None).predict_proba(judge)
        x = standardised(task.x, own)
        return skorch_net(task, len(own)).fit(x[own], task.dataset.labels[own]).predict_proba(x[rows])

    return by_fold(task, fit)


def lightning(task: Task) -> np.ndarray:
    import lightning.pytorch as pl
    from torch.utils.data import DataLoader

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(pl.LightningModule):
        def __init__(self, seed: int, steps: int) -> None:
            super().__init__()
            self.network, self.steps = task.build(seed), steps

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def predict_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            return self.network(batch[0]).softmax(1)

        def configure_optimizers(self) -> Any:
            optimizer = adamw(self.parameters(), task)
            rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
            return [optimizer], [{"scheduler": rates, "interval": "step"}]

    loading: dict[str, Any] = {"num_workers": task.workers, "persistent_workers": task.workers > 0}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}

    def fit(own: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
        learn, judge = sets(task, own, rows)
        trainer = pl.Trainer(max_epochs=task.epochs, accelerator="cpu", enable_model_summary=False, **quiet)
        network = Module(seed, task.steps(len(own)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(network, DataLoader(learn, task.batch_size, shuffle=True, **loading))
            parts = trainer.predict(network, DataLoader(judge, 1024, **loading))
        return torch.cat(parts).numpy()

    return by_fold(task, fit)


def fastai(task: Task) -> np.ndarray:
    from fastai.basics import Callback, CancelValidException, CrossEntropyLossFlat, Learner, set_seed
    from fastai.callback.schedule import ParamScheduler, SchedCos

    class NoValidation(Callback):
        def before_validate(self) -> None:
            raise CancelValidException

    loaders = fastai_pictures if task.x.ndim == 4 else fastai_table

    def fit(own: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
        set_seed(seed)
        network = task.build(seed)
        learn_from, judge = loaders(task, own, rows)
        body = network if task.x.ndim == 4 else NumbersOnly(network)
        learner = Learner(learn_from, body, loss_func=CrossEntropyLossFlat(), wd=task.weight_decay)
        cosine = ParamScheduler({"lr": SchedCos(task.learning_rate, 0.0)})
        with learner.no_bar(), learner.no_logging():
            learner.fit(task.epochs, task.learning_rate, cbs=[cosine, NoValidation()])
            return learner.get_preds(dl=judge)[0].numpy()

    return by_fold(task, fit)


class NumbersOnly(nn.Module):
    """fastai gives a table's network its categories and its numbers; ours eats numbers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        return self.network(numbers)


def fastai_table(task: Task, own: np.ndarray, rows: np.ndarray) -> tuple[Any, Any]:
    """fastai's loaders of a table: to learn from, and among them the one of the held-out rows."""
    from fastai.tabular.all import CategoryBlock, TabularPandas

    x = standardised(task.x, own)
    names = [f"x{number}" for number in range(x.shape[1])]
    part = np.concatenate([own, rows])
    frame = pd.DataFrame(x[part], columns=names).assign(y=task.dataset.labels[part])
    splits = (list(range(len(own))), list(range(len(own), len(part))))
    block = CategoryBlock(vocab=list(range(len(task.dataset.classes))))
    table = TabularPandas(frame, cont_names=names, y_names="y", y_block=block, splits=splits)
    loaders = table.dataloaders(bs=task.batch_size, val_bs=1024)
    return loaders, loaders.valid


def fastai_pictures(task: Task, own: np.ndarray, rows: np.ndarray) -> tuple[Any, Any]:
    """fastai's loaders of pictures, moved in whole batches as it does it."""
    from fastai.vision import all as vision

    part, classes = np.concatenate([own, rows]), list(range(len(task.dataset.classes)))
    moves = MOVES.get(task.augment, TURNS)
    known = task.x[own].astype(np.float32) / 255
    changes = vision.aug_transforms(
        do_flip=True,
        max_rotate=float(moves["degrees"]),
        min_zoom=moves.get("scale", (1, 1))[0],
        max_zoom=moves.get("scale", (1, 1))[1],
        max_lighting=0,
        max_warp=0,
    )
    normal = vision.Normalize.from_stats([float(known.mean())], [float(known.std())], cuda=False)
    block = vision.DataBlock(
        blocks=(vision.ImageBlock(vision.PILImageBW), vision.CategoryBlock(classes)),
        get_x=lambda row: task.x[row, 0],
        get_y=lambda row: int(task.dataset.labels[row]),
        splitter=vision.IndexSplitter(list(range(len(own), len(part)))),
        batch_tfms=[*([] if task.augment == "none" else changes), normal],
    )
    loaders = block.dataloaders(part.tolist(), bs=task.batch_size, val_bs=1024, num_workers=task.workers)
    return loaders, loaders.valid
