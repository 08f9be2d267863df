"""`load`: a pre-trained text encoder from a Hugging Face checkpoint."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from incremental.core.types import Params
from incremental.encoders.layers import Config
from incremental.encoders.tokens import Tokenize, tokenizer
from incremental.encoders.weights import family_of, parameters
from incremental.errors import UserError


class Encoder(NamedTuple):
    """A text encoder and its weights."""

    module: nn.Module
    """`module.apply({"params": params}, ids [N, L] int32, mask [N, L] bool, key=None) -> states [N, L, D] float32`"""
    params: Params
    """numpy float32: "words", "positions" …, "layer_0" … "layer_{n-1}" """
    config: Config
    tokenize: Tokenize
    """(texts, L) -> (ids [N, L] int32, mask [N, L] bool); an empty text has no tokens"""
    pool: Callable[[Array, Array], Array]
    """(states [N, L, D], mask [N, L]) -> [N, D]; 0 for a row without tokens"""


def load(path: str | Path) -> Encoder:
    """The encoder in the folder `path`, or of the checkpoint `path` in the hub's cache; nothing is downloaded.

    Raises UserError where there is none, or its parts do not fit each other.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would miss PyTorch
    source = folder(path)
    family, config = family_of(source)
    module = family.module(config)
    params = parameters(source, family, module)
    return Encoder(module, params, config, tokenizer(source, config), last if family.decoder else mean)


def mean(states: Array, mask: Array) -> Array:
    """The mean over a text's tokens (Reimers & Gurevych 2019, arXiv 1908.10084)."""
    kept = mask[..., None].astype(states.dtype)
    return (states * kept).sum(1) / jnp.maximum(kept.sum(1), 1)


def last(states: Array, mask: Array) -> Array:
    """The state of a text's last token, which has seen all the others."""
    at = jnp.maximum(mask.sum(1) - 1, 0)
    return jnp.take_along_axis(states, at[:, None, None], axis=1)[:, 0] * mask.any(1, keepdims=True)


def folder(path: str | Path) -> Path:
    """The folder that `path` means; a UserError where there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if Path(path).is_dir():
        return Path(path)
    try:
        return Path(snapshot_download(str(path), local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        raise UserError(
            f"{path}: no such folder, and no checkpoint of that name in the hub's cache; "
            f"give the folder, or fetch it first: hf download {path}"
        ) from None
