"""Hugging Face checkpoints of the known families: their numbers, and which tensor is which parameter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import numpy.typing as npt
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open

from incremental.core.types import Params
from incremental.encoders.bert import Bert
from incremental.encoders.files import said
from incremental.encoders.gpt2 import GPT2
from incremental.encoders.layers import ACTIVATIONS, Config
from incremental.errors import UserError

Tensor = npt.NDArray[Any]

BERT = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "layer_{}/query": "encoder.layer.{}.attention.self.query",
    "layer_{}/key": "encoder.layer.{}.attention.self.key",
    "layer_{}/value": "encoder.layer.{}.attention.self.value",
    "layer_{}/output": "encoder.layer.{}.attention.output.dense",
    "layer_{}/attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "layer_{}/inner": "encoder.layer.{}.intermediate.dense",
    "layer_{}/outer": "encoder.layer.{}.output.dense",
    "layer_{}/norm": "encoder.layer.{}.output.LayerNorm",
}
DISTILBERT = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "norm": "embeddings.LayerNorm",
    "layer_{}/query": "transformer.layer.{}.attention.q_lin",
    "layer_{}/key": "transformer.layer.{}.attention.k_lin",
    "layer_{}/value": "transformer.layer.{}.attention.v_lin",
    "layer_{}/output": "transformer.layer.{}.attention.out_lin",
    "layer_{}/attention_norm": "transformer.layer.{}.sa_layer_norm",
    "layer_{}/inner": "transformer.layer.{}.ffn.lin1",
    "layer_{}/outer": "transformer.layer.{}.ffn.lin2",
    "layer_{}/norm": "transformer.layer.{}.output_layer_norm",
}
GPT2S = {
    "words": "wte",
    "positions": "wpe",
    "norm": "ln_f",
    "layer_{}/attention_norm": "h.{}.ln_1",
    "layer_{}/query": "h.{}.attn.c_attn.query",  # the three are one tensor in the file
    "layer_{}/key": "h.{}.attn.c_attn.key",
    "layer_{}/value": "h.{}.attn.c_attn.value",
    "layer_{}/output": "h.{}.attn.c_proj",
    "layer_{}/feed_forward_norm": "h.{}.ln_2",
    "layer_{}/inner": "h.{}.mlp.c_fc",
    "layer_{}/outer": "h.{}.mlp.c_proj",
}


class Family(NamedTuple):
    """One kind of checkpoint."""

    config: Callable[[Any], Config]
    """of a `transformers` configuration"""
    module: type[Bert] | type[GPT2]
    names: dict[str, str]
    """part of the parameters -> part of the checkpoint"""
    prefix: str
    """before every name where the checkpoint has a head too"""
    decoder: bool
    """its dense kernels lie as here, [in, out], and a text's last token has seen all the others"""


def _bert(read: Any) -> Config:
    return Config(
        vocabulary=read.vocab_size,
        width=read.hidden_size,
        layers=read.num_hidden_layers,
        heads=read.num_attention_heads,
        inner=read.intermediate_size,
        positions=read.max_position_embeddings,
        activation=read.hidden_act,
        epsilon=read.layer_norm_eps,
        types=read.type_vocab_size,
    )


def _roberta(read: Any) -> Config:
    config, offset = _bert(read), read.pad_token_id + 1
    return config._replace(positions=config.positions - offset, offset=offset)


def _distilbert(read: Any) -> Config:
    return Config(
        vocabulary=read.vocab_size,
        width=read.dim,
        layers=read.n_layers,
        heads=read.n_heads,
        inner=read.hidden_dim,
        positions=read.max_position_embeddings,
        activation=read.activation,
    )


def _gpt2(read: Any) -> Config:
    return Config(
        vocabulary=read.vocab_size,
        width=read.n_embd,
        layers=read.n_layer,
        heads=read.n_head,
        inner=read.n_inner or 4 * read.n_embd,
        positions=read.n_positions,
        activation=read.activation_function,
        epsilon=read.layer_norm_epsilon,
    )


FAMILIES = {  # by `model_type`; MiniLM's is bert
    "bert": Family(_bert, Bert, BERT, "bert.", decoder=False),
    "roberta": Family(_roberta, Bert, BERT, "roberta.", decoder=False),
    "distilbert": Family(_distilbert, Bert, DISTILBERT, "distilbert.", decoder=False),
    "gpt2": Family(_gpt2, GPT2, GPT2S, "transformer.", decoder=True),
}
PLAIN = "get the same checkpoint in float32, float16 or bfloat16"
FLOATS = ("F64", "F32", "F16", "BF16")
"""the types of weights that are read, as safetensors names them"""
SCALES = ("SCB", "scales", "weight_scale", "weight_scale_inv", "absmax", "qweight", "qzeros", "g_idx", "weight_packed")
"""what stands beside quantised weights, or in their place: the last parts of names"""
WRAPPERS = ("module.", "_orig_mod.", "model.", "auto_model.", "0.")
"""what training code puts before every name: parallel, compiled, wrapped in a class, saved with its pooling"""
BUFFERS = ("position_ids", ".attn.bias", ".attn.masked_bias")  # no weights
# What the modules here compute; a checkpoint that says otherwise is another model.
ONLY = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
}


def family_of(folder: Path) -> tuple[Family, Config]:
    """Of the folder's config.json. Raises UserError for a family, or a member of one, that is not built here."""
    from transformers import AutoConfig

    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no config.json; expected the folder of a Hugging Face checkpoint")
    told = said(path, dict)
    kind = told.get("model_type")
    for key in ("quantization_config", "compression_config"):
        if told.get(key):
            way = told[key].get("quant_method") if isinstance(told[key], dict) else told[key]
            raise UserError(f"{path}: {key} ({way}): the weights are quantised; {PLAIN}")
    if kind not in FAMILIES:
        raise UserError(f"{path}: model_type {kind!r}; the encoders here are {', '.join(sorted(FAMILIES))}")
    try:
        read = AutoConfig.from_pretrained(folder)
    except Exception as error:  # its checks of types are not ValueErrors in every release
        raise UserError(f"{path}: {' '.join(str(error).split())}; copy the checkpoint again") from None
    family = FAMILIES[kind]
    config = family.config(read)
    for key, expected in ONLY.items():
        if getattr(read, key, expected) != expected:
            raise UserError(f"{path}: {key} = {getattr(read, key)!r}; the encoders here have {expected!r} only")
    if config.activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError(f"{path}: activation {config.activation!r}; the encoders here have {known}")
    if config.width % config.heads:
        raise UserError(f"{path}: width {config.width} is no multiple of its {config.heads} heads")
    return family, config


def parameters(folder: Path, family: Family, module: nn.Module) -> Params:
    """The folder's tensors as parameters of `module`, numpy float32.

    Raises UserError where the weights are pickled, missing or quantised, and where they do not fit the configuration.
    """
    held = _named(_tensors(folder), family)
    roots = tuple({name.split(".")[0] + "." for name in family.names.values()})
    # Heads stand outside these roots.
    own = {name: kept for name, kept in held.items() if name.startswith(roots) and not name.endswith(BUFFERS)}
    for name, (file, kind, _) in own.items():
        if kind not in FLOATS or name.rpartition(".")[2] in SCALES:
            raise UserError(f"{folder / file}: {name} is {kind}: the weights are quantised; {PLAIN}")
    tensors = {name: tensor for name, (_, _, tensor) in own.items() if tensor is not None}
    one = jax.ShapeDtypeStruct((1, 1), np.int32), jax.ShapeDtypeStruct((1, 1), np.bool_)
    shapes = flatten_dict(jax.eval_shape(module.init, jax.random.key(0), *one)["params"])
    found: dict[tuple[str, ...], Tensor] = {}
    missing, misshapen = [], []
    for path, leaf in shapes.items():
        name, turned = _name(path, family)
        tensor = tensors.pop(name, None)
        if tensor is None:
            missing.append(name)
        elif (tensor.shape[::-1] if turned else tensor.shape) != leaf.shape:
            expected = leaf.shape[::-1] if turned else leaf.shape
            misshapen.append(f"{name} is {list(tensor.shape)}, expected {list(expected)}")
        else:
            with np.errstate(over="ignore"):  # what is too large becomes infinite
                found[path] = np.ascontiguousarray(tensor.T if turned else tensor, np.float32)
            if not np.isfinite(found[path]).all():
                raise UserError(
                    f"{folder / own[name][0]}: {name} has values that are no finite numbers of 32 bits; copy the "
                    "checkpoint again, or take another one"
                )
    more = list(tensors)
    reasons = [
        f"{what} {_some(names)}"
        for what, names in (("missing:", missing), ("of another shape:", misshapen), ("left over:", more))
        if names
    ]
    if reasons:
        behind = next((name for name in held if missing and name.endswith("." + missing[0])), None)
        if behind is not None:
            unknown = behind.removesuffix(missing[0])
            reasons.append(f"the names begin with {unknown!r}, which is not known: save the checkpoint without it")
        raise UserError(f"{folder}: the weights do not fit its config.json; {'; '.join(reasons)}")
    return unflatten_dict(found)


def _some(names: list[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _name(path: tuple[str, ...], family: Family) -> tuple[str, bool]:
    """A parameter's name in the checkpoint, and whether it lies there the other way round."""
    *part, kind = path
    layer = part[0].removeprefix("layer_") if len(part) > 1 else ""
    theirs = family.names["/".join(["layer_{}", *part[1:]] if layer else part)].format(layer)
    return f"{theirs}.{'bias' if kind == 'bias' else 'weight'}", kind == "kernel" and not family.decoder


Held = tuple[str, str, Tensor | None]
"""file, type as safetensors names it, and the tensor where it is of `FLOATS`"""


def _tensors(folder: Path) -> dict[str, Held]:
    """What the folder's safetensors files hold, by name."""
    index = folder / "model.safetensors.index.json"
    files, whence = ["model.safetensors"], "expected the weights as safetensors"
    if index.is_file():
        try:
            files = sorted(set(said(index, dict)["weight_map"].values()))
            whence = f"{index.name} has weights in it; copy it too"
        except (KeyError, AttributeError, TypeError):
            raise UserError(f"{index}: no weight_map of file names; copy the checkpoint again") from None
    tensors: dict[str, Held] = {}
    for file in files:
        path = folder / file
        if not path.is_file():
            pickled = sorted(each.name for each in folder.glob("*.bin"))
            if pickled:
                raise UserError(
                    f"{folder}: only pickled weights ({pickled[0]}), which may run any code when they are read; "
                    "get model.safetensors, or convert them where you trust them: "
                    "AutoModel.from_pretrained(...).save_pretrained(...)"
                )
            raise UserError(f"{path}: no such file; {whence}")
        try:
            with safe_open(path, framework="numpy") as opened:
                for name in opened.keys():  # noqa: SIM118
                    kind = opened.get_slice(name).get_dtype()  # numpy has not all of them
                    tensors[name] = file, kind, opened.get_tensor(name) if kind in FLOATS else None
        except SafetensorError as error:
            raise UserError(
                f"{path}: not a safetensors file, or a part of one ({error}); copy the checkpoint again"
            ) from None
    return tensors


def _named(tensors: dict[str, Held], family: Family) -> dict[str, Held]:
    """The tensors by the names of today's checkpoints without a head; queries, keys and values apart."""
    named: dict[str, Held] = {}
    whence: dict[str, str] = {}
    for theirs, (file, kind, tensor) in tensors.items():
        name = theirs
        while (bare := _unwrapped(name, family)) != name:
            name = bare
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if name in named:
            raise UserError(f"{file}: {whence[name]} and {theirs} are both {name}; save one model in a checkpoint")
        whence[name] = theirs
        start, together, last = name.partition(".c_attn.")
        named[name] = file, kind, tensor
        if together and tensor is not None:
            del named[name]
            for part, third in zip(("query", "key", "value"), np.array_split(tensor, 3, axis=-1), strict=True):
                named[f"{start}.c_attn.{part}.{last}"] = file, kind, third
    return named


def _unwrapped(name: str, family: Family) -> str:
    """A tensor's name without the first of what stands before every name."""
    for prefix in (*WRAPPERS, family.prefix):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name
