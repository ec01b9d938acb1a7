"""Stage 8. Columns of one matrix -> what linear models, neighbours and trees can learn from, as parts of a
scikit-learn pipeline that are fitted together with the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

FEATURES = 128  # components of what a frozen network says, for trees
ONE_HOT = 50  # columns that one of categories becomes at most
LOUD = 3.0  # of terms: rows have length 1, which penalties that suit standardised columns hold down
WORDS, FEW_WORDS = 100, 50  # components of texts; for trees


class Terms(TransformerMixin, BaseEstimator):
    """Places of the terms of texts (n, width), -1 = none -> (n, terms) sparse, weighted as tf-idf."""

    def fit(self, x: np.ndarray, y: Any = None) -> Terms:
        self.terms_ = int(x.max(initial=0)) + 1
        self.weigh_ = TfidfTransformer().fit(self._counted(x))
        return self

    def transform(self, x: np.ndarray) -> Any:
        return LOUD * self.weigh_.transform(self._counted(x))

    def _counted(self, x: np.ndarray) -> Any:
        there = (x >= 0) & (x < self.terms_)
        ends = np.concatenate([[0], there.sum(axis=1).cumsum()])
        places = x[there].astype(np.int32)
        return csr_matrix((np.ones(len(places), np.float32), places, ends), shape=(len(x), self.terms_))


class Meanings(TransformerMixin, BaseEstimator):
    """Terms -> at most ``most`` components of them (Deerwester et al., "latent semantic analysis", 1990)."""

    def __init__(self, most: int) -> None:
        self.most = most

    def fit(self, x: Any, y: Any = None) -> Meanings:
        self.components_ = TruncatedSVD(min(self.most, min(x.shape)), random_state=0).fit(x)
        return self

    def transform(self, x: Any) -> np.ndarray:
        return self.components_.transform(x)


def _meanings(most: int) -> Any:
    return make_pipeline(Terms(), Meanings(most))


def scaled(
    kinds: Mapping[str, slice], pca: bool = False, rows: int = 0, meanings: bool = False
) -> ColumnTransformer:
    """Numbers filled in and scaled, categories one-hot, pixels as they are, terms of texts weighted.

    ``pca``: of pixels and terms their principal components; ``meanings``: of terms alone.
    """
    steps: list[tuple[str, Any, slice]] = []
    if "numbers" in kinds:
        fill = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
        steps.append(("numbers", make_pipeline(fill, StandardScaler()), kinds["numbers"]))
    if "features" in kinds:
        steps.append(("features", StandardScaler(), kinds["features"]))
    if "pixels" in kinds:
        steps.append(
            ("pixels", _components(kinds["pixels"], rows) if pca else "passthrough", kinds["pixels"])
        )
    if "categories" in kinds:
        encode = OneHotEncoder(
            handle_unknown="infrequent_if_exist", max_categories=ONE_HOT, sparse_output=False
        )
        steps.append(("categories", encode, kinds["categories"]))
    if "words" in kinds:
        steps.append(("words", _meanings(WORDS) if pca or meanings else Terms(), kinds["words"]))
    return ColumnTransformer(steps)


def encoded(kinds: Mapping[str, slice], rows: int, fill: bool = False) -> ColumnTransformer:
    """For trees: categories first, as codes (unknown = missing), numbers as they are, pixels' components.

    ``fill``: gaps get a value below all others, for trees that know no gaps.
    """
    steps: list[tuple[str, Any, slice]] = []
    if "categories" in kinds:
        encode = OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=-1 if fill else np.nan, max_categories=250
        )
        steps.append(("categories", encode, kinds["categories"]))
    if "numbers" in kinds:
        numbers = SimpleImputer(strategy="constant", fill_value=-1e30, keep_empty_features=True)
        steps.append(("numbers", numbers if fill else "passthrough", kinds["numbers"]))
    if "features" in kinds:
        # a thousand columns take trees ten times as long, and teach them nothing that these do not
        components = make_pipeline(StandardScaler(), _components(kinds["features"], rows, FEATURES))
        steps.append(("features", components, kinds["features"]))
    if "pixels" in kinds:
        steps.append(("pixels", _components(kinds["pixels"], rows), kinds["pixels"]))
    if "words" in kinds:
        steps.append(("words", _meanings(FEW_WORDS), kinds["words"]))
    return ColumnTransformer(steps)


def _components(columns: slice, rows: int, most: int = 50) -> Any:
    width = columns.stop - columns.start
    return PCA(min(most, rows), svd_solver="covariance_eigh") if width > most + 14 else "passthrough"
