"""What a checkpoint declares of its vectors: computed by hand, or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from incremental.data import encoded as cached
from incremental.encoders import pooling
from incremental.encoders.declared import declared
from incremental.encoders.encode import encode
from incremental.encoders.files import files
from incremental.encoders.load import load
from incremental.encoders.pooling import Together, first, highest, last, mean, mean_sqrt_len, weighted_mean
from incremental.encoders.top import loaded, top
from incremental.errors import UserError
from tests.encoders.conftest import Checkpoint

LIBRARY = "sentence_transformers.models."
STATES: Any = np.array([[[1, -2], [3, -4], [9, 9]], [[5, 6], [7, 8], [9, 9]]], np.float32)
MASK = np.array([[True, True, False], [False, False, False]])
TEXTS = ["red lip balm", "blue"]
MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def declare(folder: Path, *modules: tuple[str, dict[str, Any]]) -> Path:
    """Writes modules.json, and a folder for each module behind the encoder."""
    listed = [{"idx": 0, "name": "0", "path": "", "type": LIBRARY + "Transformer"}]
    for i, (kind, config) in enumerate(modules, 1):
        own = folder / f"{i}_{kind}"
        own.mkdir()
        if config:
            (own / "config.json").write_text(json.dumps(config))
        listed.append({"idx": i, "name": str(i), "path": own.name, "type": kind if "." in kind else LIBRARY + kind})
    (folder / "modules.json").write_text(json.dumps(listed))
    return folder


def old(*modes: str) -> tuple[str, dict[str, Any]]:
    return "Pooling", {f"pooling_mode_{mode}": mode in modes for mode in MODES}


def dense(activation: str = "torch.nn.modules.activation.Tanh", **more: Any) -> tuple[str, dict[str, Any]]:
    return "Dense", {"in_features": 8, "out_features": 3, "activation_function": activation, **more}


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (first, [1, -2]),
        (last, [3, -4]),
        (mean, [2, -3]),
        (highest, [3, -2]),
        (mean_sqrt_len, [4 / 2**0.5, -6 / 2**0.5]),
        (weighted_mean, [(1 + 2 * 3) / 3, (-2 - 2 * 4) / 3]),
        (Together((first, mean)), [1, -2, 2, -3]),
    ],
)
def test_pooling(pool: pooling.Pool, expected: list[float]) -> None:
    np.testing.assert_allclose(pool(STATES, MASK), [expected, [0] * len(expected)], rtol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (old("cls_token"), first),
        (old("lasttoken"), last),
        (old("max_tokens"), highest),
        (old("weightedmean_tokens"), weighted_mean),
        (old("mean_sqrt_len_tokens"), mean_sqrt_len),
        (old("mean_tokens", "cls_token"), Together((first, mean))),
        (("Pooling", {"pooling_mode_cls_token": False}), mean),  # the default, where the file says nothing of it
        (("Pooling", {"pooling_mode": "cls", "pooling_mode_mean_tokens": True}), first),
        (("Pooling", {"pooling_mode": "weightedmean"}), weighted_mean),
        (("Pooling", {"pooling_mode": ["lasttoken"]}), last),
    ],
)
def test_the_old_and_the_new_form(tmp_path: Path, module: Any, expected: pooling.Pool) -> None:
    assert declared(declare(tmp_path, module)).pool == expected


@pytest.mark.parametrize(("family", "mode", "place"), [("bert", "cls_token", 0), ("gpt2", "mean_tokens", None)])
def test_a_vector_is_what_the_checkpoint_declares(
    checkpoint: Checkpoint, family: str, mode: str, place: int | None
) -> None:
    """Pooling, a dense layer and length 1, from the states by hand."""
    folder = checkpoint(family, pad=family == "bert", template=family == "bert")
    folder = declare(folder, old(mode), dense(), ("Normalize", {}))
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(3, 8)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    save_file({"linear.weight": kernel, "linear.bias": bias}, folder / "2_Dense" / "model.safetensors")
    encoder = load(folder)
    assert encoder.width == 3
    ids, mask = encoder.tokenize(TEXTS, 8)
    states = np.asarray(jax.jit(encoder.module.apply)({"params": encoder.params}, ids, mask))
    for normalise in (False, True):
        for vector, own, kept in zip(encode(encoder, TEXTS, normalise=normalise), states, mask, strict=True):
            pooled = own[kept].mean(0) if place is None else own[place]
            by_hand = np.tanh(kernel @ pooled + bias)
            np.testing.assert_allclose(vector, by_hand / np.linalg.norm(by_hand), atol=1e-5)


def test_length_small_letters_and_prompt(checkpoint: Checkpoint) -> None:
    folder = declare(checkpoint("bert"), old("mean_tokens"))
    plain = load(folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 5, "do_lower_case": True}))
    prompts = {"prompts": {"query": "nail polish "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    own = load(folder)
    expected = encode(plain, ["nail polish blue", "nail polish red balm"], length=5)
    np.testing.assert_array_equal(encode(own, ["BLUE", "Red balm lip"]), expected)
    with pytest.raises(UserError, match=r"length=4: expected 5 \(one token of the text, 4 that"):
        encode(own, ["blue"], length=4)


def test_old_checkpoints_have_the_encoder_in_a_folder(checkpoint: Checkpoint, tmp_path: Path) -> None:
    whole = declare(tmp_path, old("cls_token"))
    checkpoint("bert").rename(tmp_path / "0_Transformer")
    listed = json.loads((whole / "modules.json").read_text())
    listed[0]["path"] = "0_Transformer"
    (whole / "modules.json").write_text(json.dumps(listed))
    assert load(whole).pool is first
    assert {file.parent.name for file in files(whole)} == {whole.name, "0_Transformer", "1_Pooling"}


def test_what_changes_vectors_changes_their_cache(checkpoint: Checkpoint) -> None:
    folder = declare(checkpoint("bert"), old("cls_token"))
    before = cached.content(folder, files(folder))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(old("mean_tokens")[1]))
    assert cached.content(folder, files(folder)) != before


REFUSED: list[tuple[str, list[Any], str]] = [
    ("a pooling that is not computed", [("Pooling", {"pooling_mode": "attention"})], "pooling attention; read here is"),
    ("several poolings in the newer form", [("Pooling", {"pooling_mode": ["cls", "mean"]})], "pooling cls, mean; read"),
    ("a pooling without a mode", [old()], "pooling none; read here"),
    ("a module that is not computed", [old("cls_token"), ("LSTM", {})], r"models\.LSTM in this place; read here are"),
    ("a module of the checkpoint's own code", [("custom_st.Pooling", {})], "code of the checkpoint's own"),
    ("a checkpoint without pooling", [], "no Pooling, so that a text has no vector"),
    ("length 1 before pooling", [("Normalize", {})], "models.Normalize in this place"),
    ("a dense layer's activation", [old("cls_token"), dense("torch.nn.Softmax")], "activation_function Softmax; read"),
    ("a dense layer in pickled weights", [old("cls_token"), dense()], "expected the dense layer as safetensors"),
    (
        "a dense layer of tokens",
        [old("cls_token"), dense(module_input_name="token_embeddings")],
        "a dense layer of tokens",
    ),
    ("a declared pooling's file is not there", [("Pooling", {})], "1_Pooling/config.json: no such file; copy"),
]


@pytest.mark.parametrize(("situation", "modules", "said"), REFUSED)
def test_what_is_not_computed_is_refused_by_name(
    tmp_path: Path, documented: Callable[..., None], situation: str, modules: list[Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as error:
        declared(declare(tmp_path, *modules))
    documented(f"encoder: {situation}", error.value)


def test_a_pooling_without_modules_and_prompts_without_tokens(tmp_path: Path, documented: Callable[..., None]) -> None:
    module, config = old("cls_token")
    declare(tmp_path, (module, {**config, "include_prompt": False}))
    prompts = tmp_path / "config_sentence_transformers.json"
    prompts.write_text(json.dumps({"prompts": {"query": "ask: "}, "default_prompt_name": "query"}))
    with pytest.raises(UserError, match="include_prompt = false") as error:
        declared(tmp_path)
    documented("encoder: a prompt that the pooling leaves out", error.value)
    prompts.write_text(json.dumps({"prompts": {}, "default_prompt_name": "query"}))
    with pytest.raises(UserError, match="default_prompt_name = 'query', which prompts does not have"):
        declared(tmp_path)
    (tmp_path / "modules.json").unlink()
    with pytest.raises(UserError, match=r"1_Pooling without modules\.json") as error:
        declared(tmp_path)
    documented("encoder: a pooling without modules.json", error.value)


def test_a_dense_layer_that_does_not_fit(checkpoint: Checkpoint, documented: Callable[..., None]) -> None:
    folder = declare(checkpoint("bert"), old("cls_token", "mean_tokens"), dense())
    save_file({"linear.weight": np.ones((3, 8), np.float32)}, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(UserError, match="takes vectors of 8 numbers, but they have 16") as error:
        load(folder)
    documented("encoder: a dense layer of another width", error.value)
    save_file({"linear.weight": np.ones((3, 8), np.int8)}, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(UserError, match=r"a int8 kernel of \[8, 3\]; config.json says \[8, 3\] floats"):
        load(folder)


def test_a_trained_top_takes_the_declared_pooling(checkpoint: Checkpoint, documented: Callable[..., None]) -> None:
    folder = declare(checkpoint("bert"), old("cls_token"))
    assert top(str(folder), 1).encoder.pool is first
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(old("cls_token", "mean_tokens")[1]))
    loaded.cache_clear()
    with pytest.raises(UserError, match=r"several poolings together, which only data\.text=encoded") as error:
        top(str(folder), 1)
    documented("encoder: several poolings, to be trained", error.value)
