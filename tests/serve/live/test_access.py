"""Tokens: only keyed hashes are kept, in a file that others cannot read; and the rate of each."""

from pathlib import Path
from typing import Any

import pytest

from incremental.errors import UserError
from incremental.serve.live import access
from incremental.serve.live.access import Access
from incremental.serve.live.limits import Rate


def test_a_token_is_shown_once_and_kept_as_a_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert access.main([str(tmp_path / "live"), "shop", "read", "write"]) == 0
    token = capsys.readouterr().out.strip()
    file = tmp_path / "live/tokens.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert token not in file.read_text()
    found = access.read(tmp_path / "live")
    assert found is not None
    own = found.find(token)
    assert own is not None
    assert (own.name, own.scopes) == ("shop", ["read", "write"])
    assert found.find(token[:-1]) is None
    other = access.Tokens("00" * 32, found.tokens)
    assert other.find(token) is None  # the hash needs the file's secret
    access.main([str(tmp_path / "live"), "shop", "admin"])
    again = access.read(tmp_path / "live")
    assert again is not None
    assert [each.scopes for each in again.tokens] == [["admin"]]


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_name_that_the_file_cannot_have_leaves_it_as_it_is(tmp_path: Path, documented: Any, name: str) -> None:
    token = access.add(tmp_path, "shop", ["read"])
    with pytest.raises(UserError, match="1 to 64 characters") as error:
        access.add(tmp_path, name, ["read"])
    if not name:
        documented("a live token without a name", error.value)
    kept = access.read(tmp_path)
    assert kept is not None
    assert kept.find(token) is not None


@pytest.mark.parametrize("scopes", [[], ["reed"], ["read", "wirte"]])
def test_a_scope_that_there_is_not_is_said(
    tmp_path: Path, documented: Any, capsys: pytest.CaptureFixture[str], scopes: list[str]
) -> None:
    assert access.main([str(tmp_path), "shop", *scopes]) == 2
    told = capsys.readouterr().err
    if scopes == ["reed"]:
        documented("a live token with a scope that there is not", told)
    assert told.endswith("give one or more of read, write, admin\n")
    assert access.read(tmp_path) is None


def test_all_hashes_are_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = access.add(tmp_path, "a", ["read"])
    access.add(tmp_path, "b", ["read"])
    compared: list[Any] = []

    def compare(one: str, other: str) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr(access.hmac, "compare_digest", compare)
    tokens = access.read(tmp_path)
    assert tokens is not None
    assert tokens.find(first) is not None
    assert len(compared) == 2


def test_without_tokens_only_this_computer_is_served(tmp_path: Path, documented: Any) -> None:
    assert Access(tmp_path, "127.0.0.1").open
    with pytest.raises(UserError) as error:
        Access(tmp_path, "0.0.0.0")
    documented("a server for other computers without tokens", error.value)
    access.add(tmp_path, "a", ["read"])
    assert not Access(tmp_path, "0.0.0.0").open


def test_a_server_whose_tokens_are_gone_lets_nobody_in(tmp_path: Path) -> None:
    token = access.add(tmp_path, "a", ["read"])
    own = Access(tmp_path, "0.0.0.0")
    assert own.allow(f"Bearer {token}", "read", "somewhere") == "token a"
    (tmp_path / "tokens.json").unlink()
    with pytest.raises(access.Refused):
        own.allow(f"Bearer {token}", "read", "somewhere")


def test_a_file_of_tokens_that_is_none_is_said(tmp_path: Path, documented: Any) -> None:
    access.add(tmp_path, "a", ["read"])
    file = tmp_path / "tokens.json"
    file.chmod(0o644)
    with pytest.raises(UserError) as error:
        access.read(tmp_path)
    documented("live tokens that others can read", error.value)
    file.chmod(0o600)
    file.write_text('{"secret": "zz"}')
    with pytest.raises(UserError, match="no file of tokens"):
        access.read(tmp_path)
    file.unlink()
    with pytest.raises(UserError) as error:
        access.remove(tmp_path, "b")
    documented("a live token that is not there", error.value)


def test_a_rate_is_one_of_each_name() -> None:
    now = [0.0]
    rate = Rate(2.0, 3.0, lambda: now[0])
    assert [rate.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert rate.take("b") == 0.0
    now[0] = 0.5
    assert [rate.take("a") for _ in range(2)] == [0.0, 0.5]
    assert rate.take("c", 3) == 0.0
    assert rate.take("c", 9) > 0  # more than ever fits
    rate.MOST = 2
    now[0] = 100.0
    rate.take("d")
    assert set(rate.left) == {"d"}  # the others are full again
