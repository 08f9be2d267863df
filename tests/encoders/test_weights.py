"""Which checkpoints are read, and what is said of the others."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from incremental.core.types import Params
from incremental.encoders.weights import family_of, parameters
from incremental.errors import UserError
from tests.encoders.conftest import Checkpoint

BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("bert", {"model_type": "t5"}, r"config.json: model_type 't5'; the encoders here are bert, distilbert, gpt2, rob"),
    ("bert", {"model_type": "of tomorrow"}, "model_type 'of tomorrow'"),
    ("bert", {"hidden_act": "quick_gelu"}, "activation 'quick_gelu'; the encoders here have gelu, "),
    (
        "bert",
        {"position_embedding_type": "relative_key"},
        "position_embedding_type = 'relative_key'; .*'absolute' only",
    ),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
    ("bert", {"num_hidden_layers": 3}, r"do not fit its config.json; missing: encoder.layer.2.\S+, .* and 13 more"),
    ("bert", {"num_hidden_layers": 1}, r"left over: encoder.layer.1.\S+, .* and 13 more"),
    ("bert", {"vocab_size": 25}, r"another shape: embeddings.word_embeddings.weight is \[24, 8\], expected \[25, 8\]"),
    ("gpt2", {"n_inner": 30}, r"another shape: h.0.mlp.c_fc.bias is \[32\], expected \[30\], h.0.*expected \[8, 30\]"),
    ("bert", {"num_attention_heads": 3}, "width 8 is no multiple of its 3 heads"),
]


def read(folder: Path) -> Params:
    family, config = family_of(folder)
    return parameters(folder, family, family.module(config))


@pytest.mark.parametrize(("family", "changed", "said"), BROKEN)
def test_a_checkpoint_that_is_another_model(
    checkpoint: Checkpoint, family: str, changed: dict[str, Any], said: str
) -> None:
    path = checkpoint(family) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(UserError, match=said):
        read(path.parent)


def test_a_folder_without_its_files(checkpoint: Checkpoint) -> None:
    folder = checkpoint("bert")
    weights = folder / "model.safetensors"
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"only pickled weights \(pytorch_model.bin\), which may run any code"):
        read(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"model.safetensors: no such file; expected the weights as safetensors"):
        read(folder)
    weights.write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"not a safetensors file, or a part of one .*; copy the checkpoint again"):
        read(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json: not JSON"):
        read(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config.json; expected the folder of a Hugging Face checkpoint"):
        read(folder)


def test_sharded_half_and_old_names_are_the_same_weights(checkpoint: Checkpoint) -> None:
    folder = checkpoint("bert")
    whole, tensors = read(folder), load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()}
    parts = {f"model-{i}.safetensors": sorted(old)[i::2] for i in range(2)}
    for file, names in parts.items():
        save_file({name: np.ascontiguousarray(old[name]) for name in names}, folder / file)
    index = {"weight_map": {name: file for file, names in parts.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    np.testing.assert_array_equal(read(folder)["layer_1"]["norm"]["scale"], whole["layer_1"]["norm"]["scale"])
    assert read(folder).keys() == whole.keys()
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match=r"model.safetensors.index.json: no weight_map"):
        read(folder)
    (folder / "model.safetensors.index.json").unlink()
    save_file({name: each.astype(ml_dtypes.bfloat16) for name, each in tensors.items()}, folder / "model.safetensors")
    half = read(folder)["words"]["embedding"]
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, whole["words"]["embedding"], rtol=2**-8)


def test_gpt2s_three_in_one(checkpoint: Checkpoint) -> None:
    folder = checkpoint("gpt2")
    whole = load_file(folder / "model.safetensors")["transformer.h.1.attn.c_attn.weight"]
    layer = read(folder)["layer_1"]
    parts = [layer[part]["kernel"] for part in ("query", "key", "value")]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
