"""scikit-learn estimators: check input, call the stages, nothing else."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d

from ayatori.data import load as load_data
from ayatori.data.columns import text_of
from ayatori.estimator_input import (
    check_rows,
    check_target,
    is_json,
    is_mixed,
    most_folds,
    plain,
    seed_from,
    threads_for,
    weights_of,
)
from ayatori.model_files import load_model, save_model
from ayatori.recipe import change, from_flat
from ayatori.records import AyatoriError, Score, Task
from ayatori.run import Result, run
from ayatori.show import Terminal
from ayatori.store import RunFolder, history_table

FORMAT = 1
MAIN: Mapping[Task, str] = {"classification": "accuracy", "multilabel": "exact_match", "regression": "r2"}


class _Estimator(BaseEstimator):
    """What Classifier and Regressor share: settings, checked rows, the run, files."""

    def __init__(
        self,
        net: str | Callable[..., Any] = "auto",
        *,
        folds: int = 5,
        repeats: int = 1,
        strategy: str = "kfold",
        stop: float = 0.1,
        splitter: Any = None,
        ensemble: str | Sequence[str] = "mean",
        bags: int = 10,
        bag_share: float = 1.0,
        bag_features: float = 1.0,
        rounds: int = 10,
        boost: str = "auto",
        boost_threshold: float = 0.01,
        boost_depth: int = 0,
        boost_epochs: int = 0,
        stack_nets: Sequence[str] = ("linear",),
        stack_rivals: Sequence[str] = ("linear", "neighbours", "boosting"),
        stack_model: Any = "auto",
        pretrained: str = "",
        finetune: str = "none",
        views: int = 4,
        epochs: int = 0,
        batch_size: int = 0,
        learning_rate: float = 0.0,
        weight_decay: float = -1.0,
        patience: int = 0,
        clip: float = 1.0,
        augment: Any = "default",
        tta: int = 1,
        balance: str = "none",
        balance_rule: str = "inverse",
        balance_strength: float = 1.0,
        balance_shares: Mapping[str, float] | None = None,
        balance_both: bool = False,
        decide: str = "auto",
        costs: Mapping[str, float] | None = None,
        activation: str = "",
        options: Mapping[str, Any] | None = None,
        loss: str | Callable[..., Any] = "auto",
        label_smoothing: float = -1.0,
        class_weights: Any = None,
        gamma: float = 2.0,
        delta: float = 1.0,
        quantile: float = 0.5,
        series: str = "",
        preset: str = "good",
        device: str = "auto",
        time_limit: float = 0.0,
        random_state: Any = 0,
        verbose: int = 0,
    ) -> None:
        self.net = net
        self.folds = folds
        self.repeats = repeats
        self.strategy = strategy
        self.stop = stop
        self.splitter = splitter
        self.ensemble = ensemble
        self.bags = bags
        self.bag_share = bag_share
        self.bag_features = bag_features
        self.rounds = rounds
        self.boost = boost
        self.boost_threshold = boost_threshold
        self.boost_depth = boost_depth
        self.boost_epochs = boost_epochs
        self.stack_nets = stack_nets
        self.stack_rivals = stack_rivals
        self.stack_model = stack_model
        self.pretrained = pretrained
        self.finetune = finetune
        self.views = views
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.clip = clip
        self.augment = augment
        self.tta = tta
        self.balance = balance
        self.balance_rule = balance_rule
        self.balance_strength = balance_strength
        self.balance_shares = balance_shares
        self.balance_both = balance_both
        self.decide = decide
        self.costs = costs
        self.activation = activation
        self.options = options
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.gamma = gamma
        self.delta = delta
        self.quantile = quantile
        self.series = series
        self.preset = preset
        self.device = device
        self.time_limit = time_limit
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags

    def save(self, path: str | Path) -> Path:
        """Write what predictions need into a new folder; no pickle.

        What a fit found besides (``out_of_fold_``, ``members_``, ``plan_``, ``history_``) stays behind, and
        so does a parameter that is an object of your own: give it again to :meth:`load`.
        """
        check_is_fitted(self)
        path, classes = Path(path), getattr(self, "classes_", None)
        if path.exists():
            raise AyatoriError(f"the folder to save to must be new, however '{path}' exists; choose another")
        if classes is not None and not is_json(classes.tolist()):
            raise AyatoriError(f"classes to be saved must be text or numbers, however: {classes[0]!r}")
        params = {name: plain(value) for name, value in self.get_params(deep=False).items()}
        names = getattr(self, "feature_names_in_", None)
        folder = RunFolder(path)
        save_model(self.model_, folder)
        folder.write_json(
            "estimator.json",  # last: a folder without it is not complete
            {
                "format": FORMAT,
                "estimator": type(self).__name__,
                "params": {name: value for name, value in params.items() if is_json(value)},
                "own": [name for name, value in params.items() if not is_json(value)],
                "classes": None if classes is None else [classes.dtype.str, classes.tolist()],
                "n_features_in": self.n_features_in_,
                "feature_names_in": None if names is None else names.tolist(),
                "out_of_fold_score": self.out_of_fold_score_,
            },
        )
        return path

    @classmethod
    def load(cls, path: str | Path, **params: Any) -> Self:
        """The fitted estimator that :meth:`save` wrote, ready to predict.

        ``params`` replace parameters that were saved. Those that were objects of your own (a network, a loss)
        must be among them, because a folder never chooses code. Raises AyatoriError where the folder is not
        what ``save`` wrote.
        """
        path = Path(path)
        facts = RunFolder(path).read_json("estimator.json")
        try:
            if (facts["format"], facts["estimator"]) != (FORMAT, cls.__name__):
                raise AyatoriError(
                    f"'{path}' must hold a {cls.__name__} of format {FORMAT}, however it holds a "
                    f"{facts['estimator']} of format {facts['format']}"
                )
            for name in facts["own"]:
                if name not in params:
                    raise AyatoriError(
                        f"`{name}` was an object of your own, which a folder cannot hold; give it again: "
                        f"{cls.__name__}.load(path, {name}=...)"
                    )
            made, score = cls().set_params(**facts["params"]), facts["out_of_fold_score"]
            # JSON has no tuples
            made.set_params(stack_nets=tuple(made.stack_nets), stack_rivals=tuple(made.stack_rivals))
            made.n_features_in_ = int(facts["n_features_in"])
            made.out_of_fold_score_ = float("nan" if score is None else score)
            if facts["feature_names_in"] is not None:
                made.feature_names_in_ = np.array(facts["feature_names_in"], dtype=object)
            if facts["classes"] is not None:
                kind, values = facts["classes"]
                made.classes_ = np.array(values, dtype=np.dtype(kind))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, AyatoriError):
                raise
            raise AyatoriError(
                f"'{path / 'estimator.json'}' must describe a {cls.__name__}, however: {error}"
            ) from None
        made.set_params(**params)
        made.model_ = load_model(path, params.get("net"), made.device)
        return made

    def _fit(
        self,
        X: Any,
        y: np.ndarray,
        task: Task,
        classes: Sequence[Any] | np.ndarray,
        class_weights: tuple[float, ...],
        groups: Any,
    ) -> Self:
        """One run without sealed rows, rivals and a look: the caller's split is outside."""
        given = {**self.get_params(deep=False), "class_weights": class_weights, "options": self.options or {}}
        given |= {"task": task, "test": 0.0, "baselines": (), "look": False, "advise": False}
        given |= {
            "balance_price": False,
            "costs": self.costs or {},
            "balance_shares": self.balance_shares or {},
        }
        given["seed"] = seed_from(given.pop("random_state"))
        recipe = from_flat({name: value for name, value in given.items() if name != "verbose"})
        dataset = load_data(X, y, recipe.data)
        if groups is not None:
            check_consistent_length(X, groups)
            codes = np.unique(column_or_1d(groups), return_inverse=True)[1].astype(np.int64)
            dataset = dataclasses.replace(dataset, groups=codes)
        if len(classes):
            names = tuple(text_of(name) for name in classes)
            dataset = dataclasses.replace(dataset, schema=dataclasses.replace(dataset.schema, classes=names))
        recipe = change(recipe, "plan", folds=most_folds(recipe.plan, dataset))
        with Terminal() if self.verbose else contextlib.nullcontext() as show, threads_for(X):
            result = run(dataset, recipe, show=show)
        self._keep(result)
        return self

    def _keep(self, result: Result) -> None:
        """What a user of the estimator wants of a run; the rows themselves are not kept."""
        self.model_ = result.model
        self.plan_ = result.plan
        self.members_ = result.members
        tables = [history_table(member.history) for member in result.members]
        self.history_ = pd.concat(tables, ignore_index=True)
        values: np.ndarray = np.full(result.predictions.values.shape[1:], np.nan, np.float32)
        scores: Mapping[str, Score] = {}
        ensemble = next((b.ensemble for b in result.blends if b.name == result.chosen), "mean")
        for blend in result.blends:  # where there are repeats, their mean comes last
            if blend.network and blend.ensemble == ensemble and blend.split == "out_of_fold":
                values = blend.values
                scores = next(entry.scores for entry in result.leaderboard if entry.name == blend.name)
        alone = result.dataset.task == "regression" and values.shape[1] == 1
        self.out_of_fold_ = values[:, 0] if alone else values
        self.out_of_fold_scores_ = dict(scores)
        main = scores.get(MAIN[result.dataset.task])
        self.out_of_fold_score_ = float("nan") if main is None else main.value

    def _values(self, X: Any) -> np.ndarray:
        """(n, outputs) float32: mean over the networks."""
        check_is_fitted(self)
        rows = check_rows(self, X, self.model_.schema.kind == "table", reset=False)
        with threads_for(rows):
            return self.model_.predict_values(self.model_.read(rows))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")


class Classifier(ClassifierMixin, _Estimator):
    """One network for each fold; together they say the class of a row.

    Every row is scored by the one network that never saw it (``out_of_fold_``); what predicts new rows is the
    mean of all networks. Zeros, and -1 where 0 has a meaning, stand for "decide from the data".

    Parameters
    ----------
    net : str, callable or torch.nn.Module, default="auto"
        ``auto``, ``mlp``, ``linear``, ``cnn``, of series ``gru`` and others, ``package:factory``, or your own
        module or factory ``(shape, outputs) -> Module``.
    folds : int, default=5
        Parts of cross-validation; taken down to the size of the smallest class, and to the number of groups.
    repeats : int, default=1
        How often the folds are drawn anew.
    strategy : {"kfold", "holdout", "rotate"}, default="kfold"
        ``holdout``: one network. ``rotate``: the folds take turns as stopping rows, and the network that
        did best on its own is kept; nothing is left to score it, so ``out_of_fold_`` is NaN.
    stop : float, default=0.1
        Share of a network's own rows that tells it when to stop.
    splitter : scikit-learn splitter, default=None
        Takes the place of the folds.
    ensemble : str or sequence of str, default="mean"
        What is made of many networks: ``mean``, ``majority`` (``median`` of numbers), ``weighted``,
        ``greedy``, ``bagging``, ``boosting``, ``stacking``. Of several, the best by held-out rows predicts.
    bags, bag_share, bag_features
        Bootstrap samples in each fold, their size, and the share of columns that each may look at.
    rounds, boost, boost_threshold, boost_depth, boost_epochs
        Rounds at most; ``samme``, ``samme.r``, ``r2`` or ``gradient``; the training loss at which boosting
        ends; layers and epochs of a weaker network.
    stack_nets, stack_rivals, stack_model
        What a stack listens to besides the network, and its last model: ``auto``, ``logistic``, ``network``
        or a scikit-learn estimator.
    pretrained : str, default=""
        A network that has learned elsewhere: ``efficientnet_lite0``, any of timm, ``NAME=FILE``, a folder in
        timm's format, or an Ayatori run.
    finetune : str, default="none"
        ``none`` (a new head alone learns), ``last`` or ``last:N`` (its last parts too), ``all``, ``auto``.
    views : int, default=4
        Views of each picture that a frozen network sees, where ``augment`` varies them.
    epochs, batch_size, patience : int, default=0
        At most so many epochs, of batches of so many rows; stop after so many epochs without improvement.
    learning_rate : float, default=0.0
        Of AdamW, at its peak.
    weight_decay : float, default=-1.0
        Of AdamW.
    clip : float, default=1.0
        Largest norm of a network's gradient; 0 = no clipping.
    augment : str, dict or transform, default="default"
        How pictures, and rows of tables, are varied in training: a preset, settings, a transform of your own,
        or ``auto``, which compares some on stop rows.
    tta : int, default=1
        Views of each picture that are averaged when it is predicted.
    balance : {"none", "weight", "sample"}, default="none"
        Rare classes count more in the loss, or are drawn more often. Probabilities are led back to the true
        shares; ``predict`` says what the networks were trained to say, not the likeliest class.
    balance_rule, balance_strength, balance_shares, balance_both
        ``inverse`` or ``effective``; 1 for all classes alike; the share that each class shall have, by its
        name; whether to sample although ``class_weights`` are given.
    decide : str, default="auto"
        ``likely``, or the figure that thresholds are chosen for on stop rows: ``accuracy``,
        ``balanced_accuracy`` or ``macro_f1``.
    costs : dict, default=None
        What mistakes cost, as ``{"true>said": cost}``; others cost 1.
    activation : str, default=""
        Any class of ``torch.nn``; "" = the network's own.
    options : dict, default=None
        Passed to the network's builder, for example ``{"width": 128}``.
    loss : str or callable, default="auto"
        ``cross_entropy``, ``focal`` or ``binary`` (labels); or ``(logits, target) -> loss`` of your own.
    label_smoothing : float, default=-1.0
        Share of the truth that is spread over all classes.
    class_weights : "balanced", dict or sequence, default=None
        Weight of each class in the loss; a sequence is in the order of ``classes_``.
    gamma, delta, quantile : float
        Of the focal loss; of the losses of a :class:`Regressor`.
    series : {"", "row"}, default=""
        "row": each row of ``X``, (n, steps) or (n, channels, steps), is a series over time.
    preset : {"quick", "good", "best"}, default="good"
        How much time a result is worth.
    device : str, default="auto"
        ``cpu``, ``cuda``, ``mps``.
    time_limit : float, default=0.0
        Seconds of training; 0 = none.
    random_state : int, RandomState or None, default=0
        The same number gives the same networks, bit for bit on a CPU. None draws a new one each time.
    verbose : int, default=0
        Above 0, what happens is printed.

    Attributes
    ----------
    classes_ : ndarray (classes,)
        The classes; for several labels a row, their numbers.
    out_of_fold_ : ndarray (n, classes) float32
        Probabilities of each row by the network that never saw it; NaN where there is none.
    out_of_fold_score_ : float
        Their accuracy (for several labels a row, the share of rows with every label right).
    out_of_fold_scores_ : dict of str to Score
        All their scores, with 95 % intervals.
    plan_ : Plan
        Which network learned from, stopped by and was scored on which row.
    history_ : DataFrame
        One line for each epoch of each network.
    members_ : tuple of Member
        The networks, and why each stopped. ``model_`` is what predicts.
    n_features_in_, feature_names_in_
        Number of columns of X (of pictures, the length of its second axis), and their names if it had such.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from ayatori import Classifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = Classifier(folds=2, epochs=10, batch_size=16).fit(X, y)
    >>> clf.predict_proba(X[:5]).shape, clf.out_of_fold_.shape, clf.out_of_fold_score_ > 0.8
    ((5, 3), (150, 3), True)
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train one network for each fold.

        Parameters
        ----------
        X : array or DataFrame (n, columns), or pictures (n, h, w), (n, channels, h, w) or (n, h, w, channels)
            Missing values are NaN; a DataFrame may hold dates, and text, which makes categories.
        y : array (n,) of classes, or (n, labels) of 0 and 1
        groups : array (n,), default=None
            Rows of one group stay in one fold.
        """
        rows = check_rows(self, X, is_mixed(X), reset=True)
        y = check_target(self, rows, y, numeric=False)
        check_classification_targets(y)
        if y.ndim > 1:
            if type_of_target(y, input_name="y") != "multilabel-indicator":
                raise AyatoriError(
                    f"y must be one class a row, or 0 and 1 for each label, however its shape is {y.shape}; "
                    "fit one Classifier for each column"
                )
            self.classes_ = np.arange(y.shape[1])
            return self._fit(rows, y, "multilabel", (), self.class_weights or (), groups)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise AyatoriError(f"y must have at least 2 classes, however every row says '{self.classes_[0]}'")
        weights = weights_of(self.class_weights, self.classes_, y)
        return self._fit(rows, codes, "classification", self.classes_, weights, groups)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Mean probability of each class, or of each label, over the networks: (n, classes) float32."""
        return self._values(X)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class (n,); or (n, labels), 1 where a label is at least as likely as not."""
        values = self._values(X)
        leans = self.model_.leaning(values)
        if self.model_.schema.task == "multilabel":
            return (leans > 0.5).astype(np.int64)
        return self.classes_[leans.argmax(axis=1)]


class Regressor(RegressorMixin, _Estimator):
    """One network for each fold; their mean is the value of a row, or its several values.

    Parameters are those of :class:`Classifier`; here ``loss`` is ``mse``, ``mae``, ``huber`` (with ``delta``
    in standard deviations of y), ``quantile`` (with ``quantile``) or your own, and ``class_weights`` None.

    Attributes
    ----------
    out_of_fold_ : ndarray (n,) or (n, values) float32
        Value of each row by the network that never saw it; NaN where there is none.
    out_of_fold_score_ : float
        Their R2.
    out_of_fold_scores_, plan_, history_, members_
        As in :class:`Classifier`.

    Examples
    --------
    >>> import numpy as np
    >>> from ayatori import Regressor
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> reg = Regressor(folds=2, epochs=10, batch_size=16).fit(X, 10 * X[:, 0])
    >>> reg.predict(X[:5]).shape, reg.out_of_fold_score_ > 0.5
    ((5,), True)
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train one network for each fold. ``y``: (n,) or (n, values); the rest as in ``Classifier.fit``."""
        rows = check_rows(self, X, is_mixed(X), reset=True)
        y = check_target(self, rows, y, numeric=True)
        return self._fit(rows, y, "regression", (), self.class_weights or (), groups)

    def predict(self, X: Any) -> np.ndarray:
        """Mean of what the networks say, in the units of y: (n,) float32, or (n, values) float64."""
        values = self._values(X)
        # scikit-learn asks for float64 where there are several values
        return values[:, 0] if values.shape[1] == 1 else values.astype(np.float64)
