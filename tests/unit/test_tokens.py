import stat
import subprocess
import sys
from pathlib import Path

import pytest

from neuroloop.errors import ConfigError, Conflict, NotFound
from neuroloop.tokens import TokenFile


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "not yet there")


def test_a_token_is_found_by_its_text_and_by_nothing_else(tokens: TokenFile) -> None:
    text = tokens.create("ann", "operator")
    found = tokens.find(text)
    assert found is not None
    assert (found.name, found.role) == ("ann", "operator")
    for other in ("", text[:-1], text + "x", found.sha256, "ann"):
        assert tokens.find(other) is None


def test_the_text_of_a_token_is_nowhere_on_disk_and_the_file_is_its_owners(tokens: TokenFile) -> None:
    text = tokens.create("ann", "viewer")
    assert all(text not in path.read_text() for path in tokens.path.parent.iterdir())
    assert stat.S_IMODE(tokens.path.stat().st_mode) == 0o600


def test_another_process_sees_what_is_created_and_revoked(tokens: TokenFile) -> None:
    reader = TokenFile(tokens.path.parent)
    assert reader.all() == []
    text = tokens.create("ann", "admin")
    assert reader.find(text) is not None
    tokens.revoke("ann")
    assert reader.find(text) is None


def test_a_name_is_taken_once(tokens: TokenFile) -> None:
    first = tokens.create("ann", "admin")
    with pytest.raises(Conflict, match="'ann' exists already"):
        tokens.create("ann", "viewer")
    assert tokens.find(first) is not None


@pytest.mark.parametrize("name", ["", "../ann", "a b", "x" * 65, "\n"])
def test_a_name_that_is_none_is_refused(tokens: TokenFile, name: str) -> None:
    with pytest.raises(ConfigError, match="token: name"):
        tokens.create(name, "viewer")
    assert tokens.all() == []


def test_revoking_what_is_not_there_says_what_is(tokens: TokenFile) -> None:
    tokens.create("ann", "viewer")
    with pytest.raises(NotFound, match="no token named 'bob'; there are: ann"):
        tokens.revoke("bob")


@pytest.mark.parametrize("content", ["", "[]", '{"tokens": [{"name": "ann"}]}', '{"tokens": 1, "x": 2}'])
def test_a_spoilt_file_is_an_error_and_lets_nobody_in(tokens: TokenFile, content: str) -> None:
    text = tokens.create("ann", "admin")
    tokens.path.write_text(content)
    for attempt in (tokens.all, lambda: tokens.find(text), lambda: tokens.create("bob", "admin")):
        with pytest.raises(ConfigError, match="no file of tokens"):
            attempt()
    assert tokens.path.read_text() == content


def test_processes_that_create_tokens_at_once_lose_none(tokens: TokenFile) -> None:
    program = (
        "import sys; from pathlib import Path; from neuroloop.tokens import TokenFile; tokens = TokenFile(Path(sys.argv"
        "[1])); [tokens.create(f'{sys.argv[2]}{i}', 'viewer') for i in range(20)]"
    )
    arguments = [sys.executable, "-c", program, str(tokens.path.parent)]
    processes = [subprocess.Popen([*arguments, name]) for name in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert {token.name for token in tokens.all()} == {f"{name}{i}" for name in "ab" for i in range(20)}
