"""Access tokens: who may use a server, and as what. One file, hashes only; a server sees changes at once.

A token is 256 random bits, so a plain SHA-256 of it cannot be guessed back and costs a microsecond per request. Its
text is shown once, when it is made.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroloop.errors import ConfigError, Conflict, NotFound

Role = Literal["viewer", "operator", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")
"""Each may do what those before it may: look; drive sessions; change who and what there is."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}$")]
PREFIX = "nl_"


class Token(BaseModel):
    """Everything kept of a token. name: whose it is, as the audit log calls them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    role: Role
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created: datetime


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tokens: list[Token] = Field(default_factory=list)


class TokenFile:
    """The tokens of a server's folder. Any number of processes may read and change them at the same time."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokens.json"
        self._seen: tuple[int, int, int] | None = None
        self._by_hash: dict[str, Token] = {}

    def all(self) -> list[Token]:
        """Every token, oldest first. Raises ConfigError for a file that is none of ours."""
        self._refresh()
        return list(self._by_hash.values())

    def find(self, text: str) -> Token | None:
        """Whose token this is, if anybody's. Raises ConfigError for a file that is none of ours."""
        self._refresh()
        return self._by_hash.get(_digest(text))

    def create(self, name: str, role: Role) -> str:
        """A new token's text, which is kept nowhere. Raises ConfigError for such a name, Conflict if it is taken."""
        text = PREFIX + secrets.token_urlsafe(32)
        try:
            token = Token(name=name, role=role, sha256=_digest(text), created=datetime.now(UTC))
        except ValidationError as error:
            fault = error.errors()[0]
            raise ConfigError(f"token: {fault['loc'][0]}: {fault['msg']}; got {fault['input']!r}") from error
        with self._changing():
            tokens = self.all()
            if any(other.name == name for other in tokens):
                raise Conflict(f"a token named {name!r} exists already; revoke it first or choose another name")
            self._write([*tokens, token])
        return text

    def revoke(self, name: str) -> None:
        """Nobody gets in with this token from now on. Raises NotFound."""
        with self._changing():
            tokens = self.all()
            left = [token for token in tokens if token.name != name]
            if len(left) == len(tokens):
                names = ", ".join(token.name for token in tokens) or "none"
                raise NotFound(f"no token named {name!r}; there are: {names}")
            self._write(left)

    def _refresh(self) -> None:
        """Read the file again if it has changed; one system call if not."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            self._seen, self._by_hash = None, {}
            return
        seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if seen == self._seen:
            return
        try:
            tokens = _File.model_validate_json(self.path.read_bytes()).tokens
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise ConfigError(f"{self.path}: is no file of tokens: {error.errors()[0]['msg']}") from error
        self._seen, self._by_hash = seen, {token.sha256: token for token in tokens}

    def _write(self, tokens: list[Token]) -> None:
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".tokens-")  # readable by its owner only
        with os.fdopen(handle, "w") as file:
            file.write(_File(tokens=tokens).model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, self.path)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
