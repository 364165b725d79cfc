"""The log of a process: one JSON map a line on standard error.

What is logged while a request is served has its `request_id`, and a session's lines have `session` and `bin`.
"""

from __future__ import annotations

import sys

import structlog
from structlog.contextvars import get_contextvars

REQUEST_ID = "request_id"


def configure_log(level: str) -> None:
    """level: debug, info, warning or error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def current_request() -> dict[str, str]:
    """The id of the request that this task serves, by its name, if it serves one."""
    return {key: value for key, value in get_contextvars().items() if key == REQUEST_ID}
