"""A whole encoder."""

from pathlib import Path

import jax
import pytest

from incremental.encoders.load import folder, load
from incremental.encoders.pooling import last, mean
from incremental.errors import UserError
from tests.encoders.conftest import Checkpoint


def test_an_encoder_has_what_it_needs(checkpoint: Checkpoint) -> None:
    encoder = load(checkpoint("bert"))
    ids, mask = encoder.tokenize(["red lip balm", "blue"], 6)
    states = jax.eval_shape(encoder.module.apply, {"params": encoder.params}, ids, mask)
    assert jax.eval_shape(encoder.pool, states, mask).shape == (2, encoder.config.width)
    assert encoder.pool is mean
    assert load(checkpoint("gpt2", pad=False, template=False)).pool is last


def test_a_folder_in_the_home_folder(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    made = checkpoint("bert")
    monkeypatch.setenv("HOME", str(made.parent))
    assert folder(f"~/{made.name}") == made


def test_no_such_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in (tmp_path / "nowhere", "nobody/no-such-encoder"):
        with pytest.raises(
            UserError, match=f"{name}: no such folder, and no checkpoint of that name in the hub's cache"
        ):
            load(name)


def test_the_hubs_cache(tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "hub" / "models--someone--tiny"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("c0ffee")
    (home / "snapshots").mkdir()
    checkpoint("bert").rename(home / "snapshots" / "c0ffee")
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert load("someone/tiny").config.width == 8
