"""Who may do what: bearer tokens with scopes, of which only keyed hashes are kept."""

import argparse
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from incremental.errors import UserError
from incremental.serve.live.refused import Refused
from incremental.shell import enter, path, status

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
FILE = "tokens.json"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LONGEST = 64  # characters of a name
PREFIX = "inc_"  # by which a token is found where it should not be


class Token(Struct, forbid_unknown_fields=True):
    """What is kept of a token."""

    name: Annotated[str, Meta(min_length=1, max_length=LONGEST)]
    scopes: list[Scope]
    hash: str  # HMAC-SHA256 of the token with the file's secret, in hexadecimal digits


class Tokens(Struct, forbid_unknown_fields=True):
    """The file FOLDER/tokens.json, which its owner alone can read."""

    secret: str  # 32 bytes in hexadecimal digits
    tokens: list[Token] = []

    def hashed(self, token: str) -> str:
        """The hash that is kept of it."""
        return hmac.new(bytes.fromhex(self.secret), token.encode(), hashlib.sha256).hexdigest()

    def find(self, token: str) -> Token | None:
        """Whose token it is. It takes the same time for each: all are compared, each in constant time."""
        own, found = self.hashed(token), None
        for each in self.tokens:
            if hmac.compare_digest(each.hash, own):
                found = each
        return found


def read(folder: Path) -> Tokens | None:
    """The tokens of a live folder; None: there is no such file, and whoever reaches the server may do all.

    Raises UserError for a file that others can read, or that is no such file.
    """
    file = folder / FILE
    if not file.exists():
        return None
    if file.stat().st_mode & 0o077:
        raise UserError(f"{file}: other users of this computer can read it; run chmod 600 on it")
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Tokens)
        bytes.fromhex(found.secret)
    except (msgspec.MsgspecError, ValueError) as error:
        raise UserError(f"{file}: no file of tokens ({error}); delete it, and make the tokens anew") from None
    return found


def add(folder: Path, name: str, scopes: Sequence[Scope]) -> str:
    """Makes a token of this name, in place of one that there is, and returns it; it cannot be read again later."""
    if not 0 < len(name) <= LONGEST:  # before the file is written, which nobody could read with it
        raise UserError(f"{name!r}: a token's name has 1 to {LONGEST} characters; give another one")
    tokens = read(folder) or Tokens(secrets.token_hex(32))
    token = PREFIX + secrets.token_urlsafe(32)
    others = [each for each in tokens.tokens if each.name != name]
    write(folder, Tokens(tokens.secret, [*others, Token(name, list(scopes), tokens.hashed(token))]))
    return token


def remove(folder: Path, name: str) -> None:
    """The token of this name is none any more."""
    tokens = read(folder)
    if tokens is None or all(each.name != name for each in tokens.tokens):
        known = ", ".join(each.name for each in tokens.tokens) if tokens else ""
        raise UserError(f"{folder / FILE}: there is no token {name!r}; there is {known or 'none'}")
    write(folder, Tokens(tokens.secret, [each for each in tokens.tokens if each.name != name]))


def write(folder: Path, tokens: Tokens) -> None:
    """Replaces the file at once; no other user can read it at any time."""
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f".{FILE}.new"
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(tokens)))
        file.flush()
        os.fsync(file.fileno())
    half.replace(folder / FILE)


class Access:
    """Answers whether a request may do what it asks for. The file is read again where it has changed."""

    def __init__(self, folder: Path, host: str) -> None:
        self.folder, self.tokens, self.stamp = folder, read(folder), stamp(folder)
        self.loopback = host in LOOPBACK
        if self.tokens is None and not self.loopback:
            raise UserError(
                f"live.host={host}: other computers would reach the server, and {folder / FILE} is not there, so that "
                "each of them might do all; make a token first (incremental-token), or leave live.host at 127.0.0.1"
            )

    @property
    def open(self) -> bool:
        """Whether no token is needed."""
        return self.tokens is None

    def allow(self, header: str | None, scope: Scope, client: str) -> str:
        """The name of whoever asks: the token's, or the address where no token is needed. Raises Refused."""
        if (now := stamp(self.folder)) != self.stamp:
            changed = read(self.folder)
            self.tokens, self.stamp = changed if changed is not None else Tokens(secrets.token_hex(32)), now
        if self.tokens is None:
            return f"from {client}"
        kind, _, token = (header or "").partition(" ")
        send = "send the header Authorization: Bearer TOKEN; incremental-token makes one"
        if kind.lower() != "bearer" or not token:
            raise Refused(401, "no token", f"a token with the scope {scope}", send)
        found = self.tokens.find(token.strip())
        if found is None:
            raise Refused(401, "unknown token", f"a token with the scope {scope}", send)
        if scope not in found.scopes:
            has = ", ".join(found.scopes) or "none"
            raise Refused(
                403, f"the token {found.name!r} has the scopes: {has}", f"the scope {scope}", "use a token that has it"
            )
        return f"token {found.name}"


def stamp(folder: Path) -> tuple[int, int] | None:
    """What changes with the file of tokens; None: there is none."""
    try:
        found = (folder / FILE).stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino


def main(arguments: Sequence[str] | None = None) -> int:
    """The `incremental-token` command."""
    parser = argparse.ArgumentParser(
        prog="incremental-token",
        description="Make a token for a live folder's server, and print it: it is shown this once. As soon as there is "
        "one, every request needs one.",
    )
    parser.add_argument("folder", type=path, help="the live folder")
    parser.add_argument("name", help="whose token it is; a token of that name is replaced")
    parser.add_argument("scopes", nargs="*", metavar="SCOPE", help=", ".join(SCOPES))
    parser.add_argument("--remove", action="store_true", help="the token of this name is none any more")
    enter()
    options = parser.parse_args(arguments)

    def work() -> None:
        if options.remove:
            remove(options.folder, options.name)
            return
        strange = sorted({*options.scopes} - {*SCOPES})
        if strange or not options.scopes:
            what = f"{strange[0]!r} is no scope" if strange else "no scope"
            raise UserError(f"{options.name}: {what}; give one or more of {', '.join(SCOPES)}")
        print(add(options.folder, options.name, options.scopes))

    return status(work)
