"""What a checkpoint of sentence-transformers declares of its vectors: pooling, what follows it, length, prompt."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from safetensors import SafetensorError
from safetensors.numpy import load_file

from incremental.core.types import Params
from incremental.encoders import pooling
from incremental.encoders.files import MODULES, modules, said
from incremental.encoders.layers import gelu
from incremental.encoders.pooling import Pool, Together
from incremental.errors import UserError

POOLINGS: dict[str, Pool] = {  # by `pooling_mode`, in the order of what is concatenated
    "cls": pooling.first,
    "max": pooling.highest,
    "mean": pooling.mean,
    "mean_sqrt_len_tokens": pooling.mean_sqrt_len,
    "weightedmean": pooling.weighted_mean,
    "lasttoken": pooling.last,
}
OLD = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens", "weightedmean": "weightedmean_tokens"}
"""`pooling_mode` -> what follows `pooling_mode_` in the older form, where it is not the mode itself"""
DENSE: dict[str, Callable[[Array], Array]] = {  # by the class that 2_Dense/config.json names
    "Tanh": jnp.tanh,
    "Identity": lambda x: x,
    "ReLU": nn.relu,
    "GELU": gelu,
    "SiLU": nn.silu,
    "Sigmoid": nn.sigmoid,
}
UNIT = "length 1"


class Declared(NamedTuple):
    """What is done to the states of a text's tokens, and to the text before.

    Attributes:
        pool: None: not declared
        steps: behind it, each `UNIT` or the activation (of `DENSE`) of the next dense layer
        dense: "kernel" [in, out] and "bias" [out] of each dense layer, numpy float32
        length: tokens of a text at most; None: as many as the encoder has positions
        lower: whether a text is put into small letters first
        prompt: what stands before every text
        transformer: the folder of the encoder itself
    """

    pool: Pool | None
    steps: tuple[str, ...]
    dense: tuple[Params, ...]
    length: int | None
    lower: bool
    prompt: str
    transformer: Path


def declared(folder: Path) -> Declared:
    """Of the checkpoint in `folder`. Raises UserError for a module, or a setting of one, that is not computed here."""
    if not (folder / MODULES).is_file():
        alone = sorted(path.parent.name for path in folder.glob("*_*/config.json"))
        if alone:
            raise UserError(
                f"{folder}: {', '.join(alone)} without {MODULES}, which says in which order they follow; "
                "copy the checkpoint again, or take these folders away"
            )
        return Declared(None, (), (), None, False, "", folder)
    first, *others = modules(folder) or [{"type": "", "path": ""}]
    if kind_of(first, folder) != "Transformer":
        raise UserError(f"{folder / MODULES}: it begins with {first['type'] or 'nothing'}; expected a Transformer")
    pool, steps, dense, prompted = None, [], [], True
    for each in others:
        kind, own = kind_of(each, folder), folder / each["path"]
        if kind == "Pooling" and pool is None:
            pool, prompted = pooling_of(own / "config.json")
        elif kind == "Normalize" and pool is not None:
            steps.append(UNIT)
        elif kind == "Dense" and pool is not None:
            activation, layer = dense_of(own)
            steps.append(activation)
            dense.append(layer)
        elif kind != "Dropout":  # it does nothing outside training
            raise UserError(
                f"{folder / MODULES}: {each['type']} in this place; read here are Transformer, Pooling, and behind "
                "it Dense, Normalize, Dropout. Take another checkpoint"
            )
    if pool is None:
        raise UserError(f"{folder / MODULES}: no Pooling, so that a text has no vector; take another checkpoint")
    source = folder / first["path"]
    length, lower = limits(source)
    return Declared(pool, tuple(steps), tuple(dense), length, lower, prompt(folder, prompted), source)


def kind_of(module: dict[str, Any], folder: Path) -> str:
    """The module's class; one of the checkpoint's own code is refused."""
    package, _, kind = str(module["type"]).rpartition(".")
    if package and package.split(".")[0] != "sentence_transformers":
        raise UserError(f"{folder / MODULES}: {module['type']} is code of the checkpoint's own, which is not run")
    return kind


def pooling_of(path: Path) -> tuple[Pool, bool]:
    """What 1_Pooling/config.json says, in its old form or its new one, and whether a prompt's tokens count."""
    given = said(path, dict)
    mode = given.get("pooling_mode")
    if mode is None:
        on = {key.removeprefix("pooling_mode_") for key, value in given.items() if "pooling_mode_" in key and value}
        if "pooling_mode_mean_tokens" not in given:
            on.add("mean_tokens")  # sentence-transformers' default
        known = {OLD.get(name, name): name for name in POOLINGS}
        chosen = [known.get(each, each) for each in sorted(on)]
    else:
        chosen = [mode] if isinstance(mode, str) else list(mode)
    other = [each for each in chosen if each not in POOLINGS]
    if other or not chosen or (mode is not None and len(chosen) > 1):
        raise UserError(
            f"{path}: pooling {', '.join(map(str, other or chosen)) or 'none'}; read here is one pooling_mode of "
            f"{', '.join(POOLINGS)}, or several in the older form. Take another checkpoint"
        )
    parts = tuple(pool for name, pool in POOLINGS.items() if name in chosen)
    pool: Pool = parts[0] if len(parts) == 1 else Together(parts)
    return pool, bool(given.get("include_prompt", True))


def dense_of(folder: Path) -> tuple[str, Params]:
    """A dense layer behind pooling: its activation and its kernel."""
    path, weights = folder / "config.json", folder / "model.safetensors"
    given = said(path, dict)
    if {given.get(key) or "sentence_embedding" for key in ("module_input_name", "module_output_name")} != {
        "sentence_embedding"
    }:
        raise UserError(f"{path}: a dense layer of tokens; read here are those of sentence_embedding")
    activation = str(given.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in DENSE:
        raise UserError(f"{path}: activation_function {activation}; read here are {', '.join(DENSE)}")
    if not weights.is_file():
        raise UserError(
            f"{weights}: no such file; expected the dense layer as safetensors (a pickled pytorch_model.bin may run "
            "any code when it is read): SentenceTransformer(...).save(...) writes it, where you trust the checkpoint"
        )
    try:
        tensors = load_file(weights)
        kernel, bias = tensors["linear.weight"].T, tensors.get("linear.bias")
    except (SafetensorError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{weights}: no dense layer with a linear.weight of floats ({error})") from None
    bias = np.zeros(kernel.shape[-1]) if bias is None else bias
    expected = (given.get("in_features"), given.get("out_features"))
    if kernel.dtype.kind in "iub" or kernel.shape != expected or bias.shape != expected[1:]:
        raise UserError(
            f"{weights}: a {kernel.dtype} kernel of {list(kernel.shape)}; config.json says {list(expected)} floats"
        )
    return activation, {"kernel": np.ascontiguousarray(kernel, np.float32), "bias": np.asarray(bias, np.float32)}


def limits(source: Path) -> tuple[int | None, bool]:
    """The most tokens of a text, and whether it is put into small letters: sentence_bert_config.json and its like."""
    for path in sorted(source.glob("sentence_*_config.json")):
        given = said(path, dict)
        most = given.get("max_seq_length")
        if most is not None and not (isinstance(most, int) and most > 0):
            raise UserError(f"{path}: max_seq_length = {most!r}; expected a whole number above 0, or null")
        return most, bool(given.get("do_lower_case", False))
    return None, False


def prompt(folder: Path, counts: bool) -> str:
    """What sentence-transformers puts before every text where nothing is asked for."""
    path = folder / "config_sentence_transformers.json"
    given = said(path, dict) if path.is_file() else {}
    name = given.get("default_prompt_name")
    if name is None:
        return ""
    found = (given.get("prompts") or {}).get(name)
    if not isinstance(found, str):
        raise UserError(f"{path}: default_prompt_name = {name!r}, which prompts does not have; copy it again")
    if found and not counts:
        raise UserError(
            f"{path}: the prompt {name!r} before every text, and include_prompt = false in the pooling: that pooling "
            "is not computed here; take another checkpoint"
        )
    return found


def width(dense: Sequence[Params], pool: Pool, states: int) -> int:
    """D of a text's vector, of states of this width."""
    if dense:
        return int(dense[-1]["bias"].shape[0])
    return states * (len(pool.parts) if isinstance(pool, Together) else 1)


def behind(vectors: Array, dense: Sequence[Params], steps: Sequence[str]) -> Array:
    """[N, D] pooled states -> [N, D']: the dense layers and lengths 1, in the order of `steps`."""
    layers = iter(dense)
    for step in steps:
        if step == UNIT:
            vectors = vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        else:
            own = next(layers)
            product = jnp.matmul(vectors, own["kernel"], precision=jax.lax.Precision.HIGHEST)
            vectors = DENSE[step](product + own["bias"])
    return vectors
