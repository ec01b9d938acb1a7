"""Ayatori: can deep learning do this, how well, honestly, and give me the model."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> module that holds it; imported when first asked for, so that `import ayatori` is quick
_WHERE = {
    "load": "ayatori.data",
    "explore": "ayatori.explore",
    "run": "ayatori.run",
    "resume": "ayatori.run",
    "Result": "ayatori.run",
    "Recipe": "ayatori.recipe",
    "DataRecipe": "ayatori.recipe",
    "PlanRecipe": "ayatori.recipe",
    "NetRecipe": "ayatori.recipe",
    "LossRecipe": "ayatori.recipe",
    "TrainRecipe": "ayatori.recipe",
    "EvaluateRecipe": "ayatori.recipe",
    "ExploreRecipe": "ayatori.recipe",
    "make_plan": "ayatori.plan",
    "load_model": "ayatori.model_files",
    "AyatoriError": "ayatori.errors",
    "hear": "ayatori.data.sounds",
    "see": "ayatori.data.scans",
    "spectrogram": "ayatori.data.sounds",
    "Classifier": "ayatori.estimators",
    "Regressor": "ayatori.estimators",
}

__all__ = ["__version__", *_WHERE]  # noqa: PLE0604

if TYPE_CHECKING:
    from ayatori.data import load as load
    from ayatori.data.scans import see as see
    from ayatori.data.sounds import hear as hear
    from ayatori.data.sounds import spectrogram as spectrogram
    from ayatori.errors import AyatoriError as AyatoriError
    from ayatori.estimators import Classifier as Classifier
    from ayatori.estimators import Regressor as Regressor
    from ayatori.explore import explore as explore
    from ayatori.model_files import load_model as load_model
    from ayatori.plan import make_plan as make_plan
    from ayatori.recipe import DataRecipe as DataRecipe
    from ayatori.recipe import EvaluateRecipe as EvaluateRecipe
    from ayatori.recipe import ExploreRecipe as ExploreRecipe
    from ayatori.recipe import LossRecipe as LossRecipe
    from ayatori.recipe import NetRecipe as NetRecipe
    from ayatori.recipe import PlanRecipe as PlanRecipe
    from ayatori.recipe import Recipe as Recipe
    from ayatori.recipe import TrainRecipe as TrainRecipe
    from ayatori.run import Result as Result
    from ayatori.run import resume as resume
    from ayatori.run import run as run


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'ayatori' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # importing the module ayatori.run must not hide the function ayatori.run
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
