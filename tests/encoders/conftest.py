"""Small checkpoints with a tokenizer."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

RECORDED = Path(__file__).parent / "recorded"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "lip", "balm", "red", "blue", "nail", "polish")
Checkpoint = Callable[..., Path]


def write_tokenizer(folder: Path, *, words: tuple[str, ...] = WORDS, pad: bool = True, template: bool = True) -> None:
    """Words apart by spaces, within [CLS] and [SEP]."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    own = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    if template:
        own.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    own.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]"} if pad else {"eos_token": "[SEP]"}
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """(family, **of the tokenizer) -> a folder of its own."""

    def made(family: str, *, pad: bool = True, template: bool = True) -> Path:
        folder = tmp_path / family
        shutil.copytree(RECORDED / family, folder)
        write_tokenizer(folder, pad=pad, template=template)
        return folder

    return made
