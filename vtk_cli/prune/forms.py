"""The forms a generator is written in for others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Form = Literal["safetensors", "csr", "ternary", "torch-prune", "onnx"]


@dataclass(frozen=True)
class FormFacts:
    """What a form is.

    Args:
        suffix: what the name of its files ends in.
        about: one line for people.
        needs: what it asks of the generator, for people; empty if nothing.
    """

    suffix: str
    about: str
    needs: str = ""


FORMS: dict[Form, FormFacts] = {
    "safetensors": FormFacts(".safetensors", "all weights, the pruned ones as zeros; loads into the plain generator"),
    "csr": FormFacts(".csr.safetensors", "the kept weights in compressed sparse rows, as scipy and torch have them"),
    "ternary": FormFacts(
        ".ternary.safetensors", "two bits a weight (0, +, -) and one number a layer", "weights of one absolute value"
    ),
    "torch-prune": FormFacts(".pt", "a state dict with the weight_orig and weight_mask of torch.nn.utils.prune"),
    "onnx": FormFacts(
        ".onnx", "the generator for onnxruntime and others, checked there", "pip install 'vtk-cli[export]'"
    ),
}
if set(FORMS) != set(get_args(Form)):
    raise AssertionError("every form has its facts")
