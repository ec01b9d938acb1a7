"""A model -> one file that other programs run: ONNX, or a program of torch's own that needs torch alone.

Both hold everything from raw values to probabilities: scaling, categories, gaps, frozen parts, the vote.
"""

from ayatori.export.files import OPSET, Exported, to_onnx, to_torch
from ayatori.export.whole import Whole, described, sample_inputs

__all__ = ["OPSET", "Exported", "Whole", "described", "sample_inputs", "to_onnx", "to_torch"]
