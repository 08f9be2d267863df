"""The peers' side of the contests (`contest.py`): run by the peers' own Python, it needs nothing of this project.

usage: python scripts/peers.py CONTESTANT DATA.npz CORES

Commands come as JSON, one a line, on standard input: {"do": METHOD, ...arguments}; the answers go to standard output.
"""

import json
import math
import sys
import time
import types
from typing import Any

import numpy as np


def sasrec(items: int, length: int, width: int, blocks: int, rate: float, limit: float, cut: bool) -> Any:
    """SASRec with its original code's block, the usual way: every position of the padded history, or of the batch's
    longest with `cut`. Items are 1..items; it returns the scores of all of them, [B, items], and by `states` the hidden
    vectors [B, L, D] of every position of histories that are padded on the right, positions from the left."""
    import torch
    from torch import nn
    from torch.nn import functional as f

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.between = nn.LayerNorm(width, eps=1e-8), nn.LayerNorm(width, eps=1e-8)
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

        def forward(self, x: Any, hidden: Any, real: Any) -> Any:
            asked = self.before(x)
            logits = self.query(asked) @ self.key(x).transpose(1, 2) / math.sqrt(width)
            weights = logits.masked_fill(hidden, -1e9).softmax(-1) * real
            x = self.between(f.dropout(weights, rate, self.training) @ self.value(x) + asked)
            inner = f.dropout(self.inner(x).relu(), rate, self.training)
            return (x + f.dropout(self.outer(inner), rate, self.training)) * real

    class SASRec(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.empty(items, width).uniform_(-limit, limit))
            self.place = nn.Parameter(torch.empty(length, width).uniform_(-limit, limit))
            self.blocks = nn.ModuleList(Block() for _ in range(blocks))
            self.norm = nn.LayerNorm(width, eps=1e-8)

        def forward(self, history: Any) -> Any:
            if cut:
                history = history[:, -max(int((history > 0).sum(1).max()), 1) :]
            size = history.shape[1]
            real = (history > 0).unsqueeze(-1)
            x = f.embedding((history - 1).clamp(min=0), self.table) * math.sqrt(width) + self.place[-size:]
            x = f.dropout(x, rate, self.training) * real
            later = torch.ones(size, size, dtype=torch.bool).triu(1)
            hidden = later | (history == 0).unsqueeze(1)
            for block in self.blocks:
                x = block(x, hidden, real)
            return self.norm(x)[:, -1] @ self.table.T

        def states(self, history: Any) -> Any:
            size = history.shape[1]
            real = (history > 0).unsqueeze(-1)
            x = f.embedding((history - 1).clamp(min=0), self.table) * math.sqrt(width) + self.place[:size]
            x = f.dropout(x, rate, self.training) * real
            later = torch.ones(size, size, dtype=torch.bool).triu(1)
            for block in self.blocks:
                x = block(x, later, real)
            return self.norm(x)

    return SASRec()


class Started:
    """SASRec and its Adam."""

    torch: Any
    setting: dict[str, Any]
    cut: bool

    def afresh(self, seed: int) -> dict[str, Any]:
        self.torch.manual_seed(seed)
        names = ("items", "length", "width", "blocks", "rate", "limit")
        chosen: Any = {name: self.setting[name] for name in names}
        self.model = sasrec(**chosen, cut=self.cut)
        self.adam = self.torch.optim.Adam(self.model.parameters(), lr=self.setting["learning_rate"], fused=True)
        return {}

    def write_weights(self, path: str) -> dict[str, Any]:
        """Writes the model's weights by name."""
        weights: Any = {name: each.detach().numpy() for name, each in self.model.named_parameters()}
        np.savez(path, **weights)
        return {}


class Torch(Started):
    """A PyTorch SASRec and its training."""

    def __init__(self, data: Any, cores: int, cut: bool = True) -> None:
        import torch

        torch.set_num_threads(cores)
        self.torch, self.cut = torch, cut
        self.history, self.label = (torch.from_numpy(data[name].astype(np.int64)) for name in ("history", "label"))
        self.tested = {name: torch.from_numpy(data[f"test_{name}"].astype(np.int64)) for name in ("history", "label")}
        self.setting = json.loads(str(data["setting"]))
        self.afresh(0)

    def train(self, rows: int) -> dict[str, Any]:
        """One pass over the first `rows` examples."""
        self.model.train()
        start = time.perf_counter()
        for picked in self.torch.randperm(rows).split(self.setting["batch"]):
            scores = self.model(self.history[picked])
            loss = self.torch.nn.functional.cross_entropy(scores, self.label[picked] - 1)
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
        return {"seconds": time.perf_counter() - start, "examples": rows}

    def recall(self, cutoff: int) -> dict[str, Any]:
        """Of the test rows, ties counted as half."""
        self.model.eval()
        hits = 0
        with self.torch.no_grad():
            for first in range(0, len(self.tested["label"]), 256):
                history, label = (self.tested[name][first : first + 256] for name in ("history", "label"))
                scores = self.model(history)
                own = scores.gather(1, label[:, None] - 1)
                rank = (scores > own).sum(1) + 0.5 * ((scores == own).sum(1) - 1)
                hits += int((rank < cutoff).sum())
        return {"recall": hits / len(self.tested["label"])}


class OnePass(Started):
    """PyTorch's SASRec in one pass, as its users write it: a batch of users' sequences, padded on the right to L or to
    the batch's longest with `cut`, the loss at every position; sampled softmax over shared negatives. A position's
    labels are several where a user's events have one time, none of which is another's history: targets [n, L, M]."""

    def __init__(self, data: Any, cores: int, cut: bool) -> None:
        import torch

        torch.set_num_threads(cores)
        self.torch, self.cut = torch, cut
        self.sequence, self.target, self.tested = (
            torch.from_numpy(data[name].astype(np.int64)) for name in ("sequence", "target", "tested")
        )
        self.setting = json.loads(str(data["setting"]))
        self.weights = torch.from_numpy(data["weights"].astype(np.float32))  # of items 1.., as negatives
        self.afresh(0)

    def states(self, sequence: Any) -> Any:
        longest = int((sequence > 0).sum(1).max()) if self.cut else sequence.shape[1]
        return self.model.states(sequence[:, :longest]), longest

    def train(self, epochs: int = 1) -> dict[str, Any]:
        torch = self.torch
        self.model.train()
        start, examples, number = time.perf_counter(), 0, self.setting["negatives"]
        log_q = (number * self.weights / self.weights.sum()).log()
        for _ in range(epochs):
            for picked in torch.randperm(len(self.sequence)).split(self.setting["users"]):
                hidden, longest = self.states(self.sequence[picked])
                target = self.target[picked, :longest]
                row, place, which = target.nonzero(as_tuple=True)
                hidden, label = hidden[row, place], target[row, place, which] - 1
                drawn = torch.multinomial(self.weights, number, replacement=True)
                own = (hidden * self.model.table[label]).sum(1, keepdim=True)
                others = hidden @ self.model.table[drawn].T - log_q[drawn]
                others = others.masked_fill(drawn == label[:, None], -math.inf)
                loss = (torch.cat([own, others], 1).logsumexp(1) - own[:, 0]).mean()
                self.adam.zero_grad()
                loss.backward()
                self.adam.step()
                examples += len(label)
        return {"seconds": time.perf_counter() - start, "examples": examples}

    def represent(self, path: str) -> dict[str, Any]:
        """Writes the hidden vectors [N, D] of the test histories, and the item table [items, D]."""
        self.model.eval()
        found = []
        with self.torch.no_grad():
            for history in self.tested.split(256):
                hidden, _ = self.states(history)
                found.append(hidden[self.torch.arange(len(history)), (history > 0).sum(1) - 1])
        np.savez(path, hidden=self.torch.cat(found).numpy(), table=self.model.table.detach().numpy())
        return {}


class Avalanche(Torch):
    """The same model, cut to the batch's longest, under Avalanche's training loop and one of its plugins."""

    def __init__(self, data: Any, cores: int, plugin: str) -> None:
        super().__init__(data, cores)
        # Avalanche imports torchvision, whose published build needs CUDA's libraries for image operators that nothing
        # here uses; without the registration of their shapes it can be imported beside a CPU build of PyTorch.
        sys.modules["torchvision._meta_registrations"] = types.ModuleType("_meta_registrations")
        from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, ReplayPlugin
        from avalanche.training.supervised import Naive

        plugins = {
            "replay": lambda: ReplayPlugin(mem_size=5000, batch_size_mem=128),
            "ewc": lambda: EWCPlugin(ewc_lambda=1.0),
        }
        self.naive = Naive(
            model=self.model,
            optimizer=self.adam,
            train_mb_size=self.setting["batch"],
            plugins=[plugins[plugin]()],
            evaluator=EvaluationPlugin(),
        )

    def update(self, first: int, rows: int) -> dict[str, Any]:
        """One experience: an epoch of the rows from `first` on, and what the plugin does before and after it."""
        from avalanche.benchmarks import benchmark_from_datasets
        from avalanche.benchmarks.utils import _make_taskaware_classification_dataset as dataset

        history, target = self.history[first : first + rows], self.label[first : first + rows] - 1
        whole = self.torch.utils.data.TensorDataset(history, target)
        arrived = dataset(whole, task_labels=0, targets=target.tolist())
        (experience,) = benchmark_from_datasets(train=[arrived]).train_stream
        start = time.perf_counter()
        self.naive.train(experience)
        return {"seconds": time.perf_counter() - start, "examples": rows}


class Factorization:
    """LightFM's or implicit's BPR, stochastic gradients example by example, in all threads."""

    def __init__(self, data: Any, cores: int, library: str) -> None:
        from scipy.sparse import coo_matrix

        shape = tuple(int(n) for n in data["shape"])
        pairs = coo_matrix((np.ones(len(data["user"]), np.float32), (data["user"], data["item"])), shape)
        self.pairs = pairs.tocsr()
        self.pairs.data[:] = 1.0  # a pair that occurs more than once is one
        self.cores, self.library, self.setting = cores, library, json.loads(str(data["setting"]))

    def train(self, epochs: int) -> dict[str, Any]:
        """From the start."""
        width = self.setting["width"]
        start = time.perf_counter()
        if self.library == "lightfm":
            from lightfm import LightFM

            self.model = LightFM(no_components=width, loss="bpr", random_state=0)
            self.model.fit(self.pairs.tocoo(), epochs=epochs, num_threads=self.cores)
        else:
            from implicit.bpr import BayesianPersonalizedRanking

            self.model = BayesianPersonalizedRanking(
                factors=width, iterations=epochs, num_threads=self.cores, random_state=0
            )
            self.model.fit(self.pairs, show_progress=False)
        return {"seconds": time.perf_counter() - start, "examples": epochs * self.pairs.nnz}

    def tables(self, path: str) -> dict[str, Any]:
        """Writes user and item vectors whose product is the score."""
        if self.library == "lightfm":
            user, item = self.model.user_embeddings, np.c_[self.model.item_embeddings, self.model.item_biases]
            user = np.c_[user, np.ones(len(user), np.float32)]
        else:
            user, item = self.model.user_factors, self.model.item_factors
        np.savez(path, user=user, item=item)
        return {}


class TextEncoder:
    """A Hugging Face checkpoint in PyTorch: its tokenizer, its model, and the mean over a text's tokens."""

    def __init__(self, data: Any, cores: int) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(cores)
        self.torch, self.texts = torch, data["texts"].tolist()
        folder, self.length = str(data["folder"]), int(data["length"])
        self.tokenizer, self.model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
        ends = np.cumsum(data["sizes"])
        self.rows = [data["rows"][end - size : end] for end, size in zip(ends, data["sizes"], strict=True)]
        self.shapes = data["shapes"]

    def encode(self, path: str) -> dict[str, Any]:
        """All texts, in the batches that were asked for; the vectors are written to `path`."""
        start = time.perf_counter()
        told = self.tokenizer(self.texts, truncation=True, max_length=self.length, padding=False)["input_ids"]
        out = np.zeros((len(told), self.model.config.hidden_size), np.float32)
        with self.torch.inference_mode():
            for rows, shape in zip(self.rows, self.shapes, strict=True):
                ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
                for at, row in enumerate(rows):
                    ids[at, : len(told[row])], mask[at, : len(told[row])] = told[row], 1
                kept = self.torch.from_numpy(mask)
                states = self.model(input_ids=self.torch.from_numpy(ids), attention_mask=kept).last_hidden_state
                vectors = (states * kept[..., None]).sum(1) / kept.sum(1, keepdim=True).clamp(min=1)
                out[rows] = vectors[: len(rows)].numpy()
        seconds = time.perf_counter() - start
        np.save(path, out)
        return {"seconds": seconds, "examples": len(told)}


CONTESTANTS = {
    "encoder": TextEncoder,
    "padded": lambda data, cores: Torch(data, cores, cut=False),
    "cut": Torch,
    "one_pass": lambda data, cores: OnePass(data, cores, cut=False),
    "one_pass_cut": lambda data, cores: OnePass(data, cores, cut=True),
    "replay": lambda data, cores: Avalanche(data, cores, "replay"),
    "ewc": lambda data, cores: Avalanche(data, cores, "ewc"),
    "lightfm": lambda data, cores: Factorization(data, cores, "lightfm"),
    "implicit": lambda data, cores: Factorization(data, cores, "implicit"),
}


def main() -> None:
    """Answers until standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    name, path, cores = sys.argv[1:]
    contestant = CONTESTANTS[name](np.load(path), int(cores))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(getattr(contestant, asked.pop("do"))(**asked)), file=answers, flush=True)


if __name__ == "__main__":
    main()
