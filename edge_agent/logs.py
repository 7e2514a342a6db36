"""Logs: lines for a person at a terminal, JSON for machines, in a file that rotates if one is named.

A message is an event name and facts as `key=value`; the JSON form keeps both. Nothing secret or personal is logged
anywhere, so there is nothing to filter here; what could slip in by an exception's text is cut at a length.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES = 10 * 1024 * 1024
KEPT_FILES = 5
MAX_MESSAGE = 4000
CHATTY = ("httpx", "httpcore", "asyncio", "uvicorn")


class JsonLines(logging.Formatter):
    """One object a line: at, level, logger, event, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()[:MAX_MESSAGE]
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": message.partition(" ")[0],
            "message": message,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)[-MAX_MESSAGE:]
        return json.dumps(line, ensure_ascii=False)


def configure(*, verbose: bool = False, as_json: bool = False, file: Path | None = None) -> None:
    """Set up the root logger. Raises OSError if the file cannot be written."""
    handler: logging.Handler
    if file is not None:
        handler = RotatingFileHandler(file, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
    else:
        handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    handler.setFormatter(JsonLines() if as_json or file is not None else plain)
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler], force=True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
