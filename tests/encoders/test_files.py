"""Files that are not what they seem: pointers, links to nothing, parts of files, quantised weights, wrapped names."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from incremental.encoders.files import files
from incremental.encoders.load import folder, load
from incremental.encoders.weights import family_of, parameters
from incremental.errors import UserError
from tests.encoders.conftest import Checkpoint

Documented = Callable[..., None]
QUERY = "encoder.layer.0.attention.self.query.weight"


def read(path: Path) -> Any:
    family, config = family_of(path)
    return parameters(path, family, family.module(config))


def changed(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """The checkpoint with its tensors changed."""
    tensors = change(load_file(path / "model.safetensors"))
    save_file({name: np.ascontiguousarray(each) for name, each in tensors.items()}, path / "model.safetensors")
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "vocab.txt", "modules.json"])
def test_a_pointer_of_git_lfs(tmp_path: Path, documented: Documented, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90\n")
    with pytest.raises(UserError, match=f"{name}: a Git LFS pointer, not the file itself; .* git lfs pull") as error:
        folder(tmp_path)
    if name == "model.safetensors":
        documented("encoder: a file that is a Git LFS pointer", error.value)


def test_the_text_of_a_link(tmp_path: Path, documented: Documented) -> None:
    (tmp_path / "config.json").write_text("../../blobs/0123")
    with pytest.raises(
        UserError, match=r"config\.json: the text of a link \(../../blobs/0123\), not the file"
    ) as error:
        folder(tmp_path)
    documented("encoder: a file that is the text of a link", error.value)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "vocab.txt").write_text("/\n../\n")  # words
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "1_Pooling/config.json"])
def test_links_to_nothing_and_links(tmp_path: Path, documented: Documented, name: str) -> None:
    own = tmp_path / "copied"
    (own / "1_Pooling").mkdir(parents=True)
    (own / "modules.json").write_text(json.dumps([{"type": "Pooling", "path": "1_Pooling"}]))
    (own / name).symlink_to("../../blobs/0123")
    with pytest.raises(UserError, match=f"{name}: a link to .*0123, which is not there; .* cp -rL") as error:
        folder(own)
    if name == "config.json":
        documented("encoder: a file that is a link to nothing", error.value)
    (own / name).unlink()
    (tmp_path / "whole").write_text("{}")
    (own / name).symlink_to(tmp_path / "whole")
    (tmp_path / "link").symlink_to(own)
    assert [file.name for file in files(own)] == [file.name for file in files(folder(tmp_path / "link"))]


def test_parts_of_a_checkpoint(checkpoint: Checkpoint, documented: Documented) -> None:
    own = checkpoint("bert")
    weights = own / "model.safetensors"
    whole = weights.read_bytes()
    for part, situation in (
        (whole[:-100], "encoder: the beginning of a safetensors file"),
        (b"", "encoder: an empty safetensors file"),
    ):
        weights.write_bytes(part)
        with pytest.raises(UserError, match=r"not a safetensors file, or a part of one") as error:
            read(own)
        documented(situation, error.value)
    index = own / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {QUERY: "model-00001-of-00002.safetensors"}}))
    with pytest.raises(UserError, match=r"-of-00002\.safetensors: no such file; model\.saf\S+ has weights") as error:
        read(own)
    documented("encoder: a shard that is not there", error.value)
    for said in ({"weight_map": [1]}, {"weight_map": {"a": 1, "b": "c"}}, {"weight_map": {"a": [1]}}):
        index.write_text(json.dumps(said))
        with pytest.raises(UserError, match="no weight_map of file names"):
            read(own)
    (own / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config\.json: list, expected an object"):
        read(own)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(ml_dtypes.float8_e4m3fn, "F8_E4M3"), (ml_dtypes.float8_e5m2, "F8_E5M2"), (np.int8, "I8"), (np.uint8, "U8")],
)
def test_quantised_weights(checkpoint: Checkpoint, documented: Documented, dtype: Any, kind: str) -> None:
    own = changed(checkpoint("bert"), lambda tensors: {**tensors, QUERY: tensors[QUERY].astype(dtype)})
    with pytest.raises(UserError, match=rf"{QUERY} is {kind}: the weights are quantised; get the same") as error:
        read(own)
    if kind.startswith("F8_E4"):
        documented("encoder: weights of 8 bits", error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_weights_that_are_no_numbers(checkpoint: Checkpoint, documented: Documented, value: float) -> None:
    def spoilt(tensors: dict[str, Any]) -> dict[str, Any]:
        whole = tensors[QUERY].astype(np.float64)
        whole[0, 0] = value
        return {**tensors, QUERY: whole}

    own = changed(checkpoint("bert"), spoilt)
    with pytest.raises(UserError, match=rf"model\.safetensors: {QUERY} has values that are no finite numbers") as error:
        read(own)
    documented("encoder: weights that are no numbers", error.value)


def test_what_a_configuration_gives_in_another_type_is_told_in_one_line(checkpoint: Checkpoint) -> None:
    own = checkpoint("bert")
    path = own / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_size": "8"}))
    with pytest.raises(UserError, match=r"config\.json: .*hidden_size.*; copy the checkpoint again") as error:
        family_of(own)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("last", ["SCB", "weight.absmax", "weight_scale", "scales", "weight_scale_inv"])
def test_scales_beside_weights(checkpoint: Checkpoint, last: str) -> None:
    name = QUERY.removesuffix("weight") + last
    own = changed(checkpoint("bert"), lambda tensors: {**tensors, name: np.ones(8, np.float32)})
    with pytest.raises(UserError, match=f"{name} is F32: the weights are quantised"):
        read(own)


def test_gptq_has_other_tensors_and_gpt2s_are_together(checkpoint: Checkpoint) -> None:
    packed = QUERY.replace("weight", "qweight")
    own = changed(checkpoint("bert"), lambda tensors: {**tensors, packed: np.ones((1, 8), np.int32)})
    with pytest.raises(UserError, match=f"{packed} is I32: the weights are quantised"):
        read(own)
    name = "transformer.h.1.attn.c_attn.weight"
    own = changed(checkpoint("gpt2"), lambda tensors: {**tensors, name: tensors[name].astype(np.int8)})
    with pytest.raises(UserError, match=r"h\.1\.attn\.c_attn\.weight is I8: the weights are quantised"):
        read(own)


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_a_configuration_that_says_quantised(checkpoint: Checkpoint, documented: Documented, key: str) -> None:
    path = checkpoint("bert") / "config.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, key: {"quant_method": "gptq", "bits": 4}}))
    with pytest.raises(UserError, match=rf"{key} \(gptq\): the weights are quantised") as error:
        read(path.parent)
    if key == "quantization_config":
        documented("encoder: a configuration that says quantised", error.value)
    path.write_text(json.dumps({**whole, key: None}))
    assert read(path.parent)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.bert.", "module._orig_mod.bert.", "0.auto_model."])
def test_names_behind_wrappers(checkpoint: Checkpoint, prefix: str) -> None:
    own = checkpoint("bert")
    expected = read(own)["layer_0"]["query"]["kernel"]
    changed(own, lambda tensors: {prefix + name: each for name, each in tensors.items()})
    np.testing.assert_array_equal(read(own)["layer_0"]["query"]["kernel"], expected)


def test_wrappers_that_are_not_known_are_named(checkpoint: Checkpoint, documented: Documented) -> None:
    own = changed(checkpoint("bert"), lambda tensors: {f"student.{name}": each for name, each in tensors.items()})
    with pytest.raises(UserError, match=r"the names begin with 'student\.', which is not known") as error:
        read(own)
    documented("encoder: names behind a wrapper that is not known", error.value)
    own = checkpoint("distilbert")
    changed(own, lambda tensors: {**tensors, **{f"module.{name}": each for name, each in tensors.items()}})
    with pytest.raises(UserError, match=r"(\S+) and module\.\1 are both \1; save one model"):
        read(own)


def test_half_precision_is_read(checkpoint: Checkpoint) -> None:
    own = checkpoint("bert")
    expected = read(own)["layer_0"]["query"]["kernel"]
    changed(own, lambda tensors: {name: each.astype(np.float16) for name, each in tensors.items()})
    np.testing.assert_allclose(load(own).params["layer_0"]["query"]["kernel"], expected, rtol=1e-3, atol=1e-6)
