"""Layers of transformers in numpy; p are a layer's parameters."""

from typing import Any

import numpy as np


def norm(x: Any, p: Any, epsilon: float = 1e-6) -> Any:
    """Layer normalisation."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * p["scale"] + p["bias"]


def dense(x: Any, p: Any) -> Any:
    """A linear layer."""
    return x @ p["kernel"] + p["bias"]
