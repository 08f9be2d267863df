"""`load`: a pre-trained text encoder from a Hugging Face checkpoint."""

import os
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn

from incremental.core.types import Params
from incremental.encoders.declared import declared, width
from incremental.encoders.files import files
from incremental.encoders.layers import Config
from incremental.encoders.pooling import Pool, last, mean
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
    pool: Pool
    """(states [N, L, D], mask [N, L]) -> [N, D]; 0 for a row without tokens"""
    dense: tuple[Params, ...] = ()
    """dense layers behind it"""
    steps: tuple[str, ...] = ()
    """what follows pooling, in order (`incremental.encoders.declared`)"""
    length: int | None = None
    """tokens of a text at most, as the checkpoint declares"""

    @property
    def width(self) -> int:
        """Of a text's vector."""
        return width(self.dense, self.pool, self.config.width)


def load(path: str | Path) -> Encoder:
    """The encoder in the folder `path`, or of the checkpoint `path` in the hub's cache; nothing is downloaded.

    Raises UserError where there is none, or its parts do not fit each other.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would miss PyTorch
    whole = folder(path)
    own = declared(whole)
    source = own.transformer
    family, config = family_of(source)
    module = family.module(config)
    params = parameters(source, family, module)
    pool = own.pool or (last if family.decoder else mean)
    entering = width((), pool, config.width)
    for layer in own.dense:
        if len(layer["kernel"]) != entering:
            raise UserError(
                f"{whole}: a dense layer takes vectors of {len(layer['kernel'])} numbers, but they have {entering}; "
                "copy the checkpoint again"
            )
        entering = layer["kernel"].shape[1]
    tokenize = tokenizer(source, config, prompt=own.prompt, lower=own.lower)
    return Encoder(module, params, config, tokenize, pool, own.dense, own.steps, own.length)


def folder(path: str | Path) -> Path:
    """The folder that `path` means; a UserError where there is none, or one of its files is not itself there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        local = Path(path).expanduser()
        found = local if local.is_dir() else Path(snapshot_download(str(path), local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        raise UserError(
            f"{path}: no such folder, and no checkpoint of that name in the hub's cache; "
            f"give the folder, or fetch it first: hf download {path}"
        ) from None
    files(found)
    return found
