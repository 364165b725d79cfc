"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """check: what was looked at. found: in words. advice: what to do; empty where nothing is wrong."""

    check: str
    state: State
    found: str
    advice: str = ""
