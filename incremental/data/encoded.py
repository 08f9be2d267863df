"""Item titles as the vectors of a pre-trained text encoder, each encoded once."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from incremental.domains import Count, checked
from incremental.shell import cache_folder, once

Vectors = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]
BATCH = 256  # texts whose states are computed together


@checked
def encoded(*, path: str, length: Count = 64, normalise: bool = True, cache: str | None = None) -> Encode:
    """Titles -> [titles, D] float32: what the encoder at `path` (`incremental.encoders.load`) makes of each.

    A title is cut after `length` tokens; `normalise`: vectors of length 1, which a checkpoint may declare by itself; a
    title without words is 0. One title's vector depends on no other's. The folder `cache` (default: incremental/ in the
    user's cache folder) has one folder for each content of the encoder's folder, code of `incremental.encoders`, and
    these settings; only titles that it lacks are encoded.
    """

    def encode(texts: Sequence[str]) -> Vectors:
        from incremental.encoders.encode import encode
        from incremental.encoders.load import load

        def name(i: int) -> str:
            return f"data.text: {texts[i]!r}"

        return encode(load(path), texts, length=length, normalise=normalise, name=name)

    return lambda titles: kept(titles, path, cache, f"length={length} normalise={normalise}", encode)


@checked
def states(*, path: str, layers: Count = 1, length: Count = 16, cache: str | None = None) -> Encode:
    """Titles -> [titles, `length`, D] float32: what enters the top `layers` of the encoder at `path`, token by token.

    0 where there is no token; a title is cut after `length` of them. For `model=encoder_items`, which trains these
    layers: the ones below are frozen, so that their states are encoded once and kept, as in `encoded`. All layers: the
    states are the embeddings', and only these are frozen.
    """

    def encode(texts: Sequence[str]) -> Vectors:
        import jax

        from incremental.encoders.top import top

        own = top(path, layers)
        below = jax.jit(jax.default_matmul_precision("highest")(own.below))  # the file must not depend on the device
        found = []
        for at in range(0, len(texts), BATCH):
            ids, mask = own.encoder.tokenize([*texts[at : at + BATCH], *[""] * (at + BATCH - len(texts))], length)
            found.append(np.asarray(below(own.frozen, ids, mask)))
        return np.concatenate(found)[: len(texts)]

    return lambda titles: kept(titles, path, cache, f"length={length} layers={layers}", encode)


def kept(titles: Sequence[str], path: str, cache: str | None, settings: str, encode: Encode) -> Vectors:
    """[titles, ...]: what `encode` makes of each, read from the cache where it is there; 0 for one without words."""
    from incremental import encoders
    from incremental.encoders.files import files
    from incremental.encoders.load import folder
    from incremental.encoders.tokens import check

    check(titles, name=lambda i: f"data.text: the title of item {i}")
    own, checkpoint = Path(encoders.__file__).parent, folder(path)
    code = content(own, own.glob("*.py"))  # that another version of it reads no vectors of this one
    name = digest(f"{content(checkpoint, files(checkpoint))} {code} {settings}".encode()).hex()
    root = Path(cache).expanduser() if cache else cache_folder()
    store = Store(None if root is None else root / name)
    texts = sorted({title for title in titles if title.strip()})
    missing = [text for text in texts if digest(text.encode()) not in store.vectors]
    if missing:
        store.add(missing, encode(missing))
    # Where no title has words yet, as at the beginning of a log, one text says how long a vector is.
    none = np.zeros_like(next(iter(store.vectors.values())) if store.vectors else encode(["a"])[0])
    return np.stack([store.vectors.get(digest(title.encode()), none) for title in titles])


class Store:
    """Vectors by the hash of their text, in a folder of files that are written once: several runs may add to it.

    What cannot be read is encoded again, what cannot be written is not kept; both cost a line. None: keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.vectors: dict[bytes, Vectors] = {}
        for path in sorted(folder.glob("*.npz")) if folder else ():
            try:
                with path.open("rb") as opened, np.load(opened) as kept:
                    pairs = zip(kept["texts"], kept["vectors"], strict=True)
                    self.vectors |= {bytes(key): vector for key, vector in pairs}
            except Exception:  # of zip, of numpy's header, of the two arrays
                once(f"note: {path}: the cached text vectors cannot be read and are made anew; remove the file")

    def add(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Keeps these too, in a file of their own that is named by the texts and appears as a whole."""
        keys = [digest(text.encode()) for text in texts]
        self.vectors |= dict(zip(keys, vectors, strict=True))
        if self.folder is None:
            return
        whole = self.folder / f"{digest(b''.join(keys)).hex()}.npz"
        part = whole.with_suffix(f".{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.savez(file, texts=np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1), vectors=vectors)
            part.replace(whole)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            once(
                f"note: {self.folder}: the text vectors cannot be kept ({error.strerror}), and the next run makes them "
                "again; choose another folder with data.text.cache=…"
            )


def digest(content: bytes) -> bytes:
    """16 bytes of the SHA-256."""
    return hashlib.sha256(content).digest()[:16]


def content(folder: Path, files: Iterable[Path]) -> str:
    """The hash of these files of a checkpoint or of a package, wherever it lies."""
    whole = hashlib.sha256()
    for file in sorted(files):
        with file.open("rb") as opened:
            name = file.relative_to(folder).as_posix()
            whole.update(f"{name} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()
