"""Five folds of ten bootstrap bags of one MLP 64-64 on a table (satellite): fifty networks.

Ayatori trains one Plan of 50 columns. The rival is scikit-learn's BaggingClassifier over skorch networks
inside cross_val_predict, as it is written (``bagging``: one process, all cores in each operation) and
with a process per core (``bagging_jobs``). A fold's accuracy is that of the mean of its ten bags.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

import numpy as np
import rivals
from common import compare

from ayatori.records import SCORE, STOP, Plan


def bags(plan: Plan, number: int) -> Plan:
    """Each column of ``plan`` ``number`` times, its training rows drawn with replacement each time."""
    roles, columns = [], []
    for member, column in enumerate(plan.columns):
        own = plan.train_rows(member)
        for bag in range(number):
            seed = int(np.random.default_rng([column.seed, bag]).integers(2**31))
            drawn = np.random.default_rng(seed).choice(own, len(own))
            role = plan.roles[:, member].copy()
            role[own] = np.minimum(np.bincount(drawn, minlength=len(role))[own], 250)
            roles.append(role)
            columns.append(dataclasses.replace(column, bag=bag, seed=seed))
    return Plan(np.stack(roles, axis=1), tuple(columns), plan.strategy)


def read(options: argparse.Namespace) -> rivals.Task:
    dataset, plan = rivals.read_table(options.table, "classes", options.rows)
    plan = bags(plan, options.bags)
    return rivals.Task(dataset, plan, rivals.narrow_mlp, options.epochs, 128, options.learning_rate)


def bagging(task: rivals.Task, jobs: int = 1) -> np.ndarray:
    """The same folds; scikit-learn draws bags of its own from the same rows of a fold."""
    from sklearn.ensemble import BaggingClassifier
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    plan, folds = task.plan, sorted({column.fold for column in task.plan.columns})
    first = [next(m for m, column in enumerate(plan.columns) if column.fold == fold) for fold in folds]
    # a bag's plan says 0 of a row that was not drawn
    splits = [(np.flatnonzero(plan.roles[:, m] < STOP), plan.rows(m, SCORE)) for m in first]
    number = plan.members // len(folds)
    network = rivals.skorch_net(task, len(splits[0][0]))
    ensemble = BaggingClassifier(network, n_estimators=number, random_state=0)
    model = make_pipeline(StandardScaler(), ensemble)
    return cross_val_predict(
        model, task.x, task.dataset.labels, cv=splits, n_jobs=jobs, method="predict_proba"
    )


def bagging_jobs(task: rivals.Task) -> np.ndarray:
    return bagging(task, jobs=int(os.environ["OMP_NUM_THREADS"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="satellite.csv")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--bags", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.003)
    parser.add_argument("--rows", type=int, help="only the first of them")
    compare(parser, {"ayatori": rivals.ayatori, "bagging": bagging, "bagging_jobs": bagging_jobs}, read)


if __name__ == "__main__":
    main()
