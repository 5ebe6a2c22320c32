"""Log lines beside something that redraws itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, TextIO


class DivertedLogs:
    """Log handlers that write to one stream write to another until they are given back.

    A handler keeps the stream that was standard error when it was made. Where bars redraw themselves on a terminal, a
    line that goes past them is drawn over: of six lines beside three bars, two were still there afterwards.
    """

    def __init__(self) -> None:
        self._diverted: list[tuple[logging.StreamHandler[Any], TextIO]] = []

    def divert(self, old: TextIO, new: TextIO) -> None:
        """Let every handler on ``old`` write to ``new``."""
        for handler in _stream_handlers():
            if handler.stream is old:
                handler.setStream(new)
                self._diverted.append((handler, old))

    def give_back(self) -> None:
        """Let them write to where they wrote before."""
        for handler, stream in self._diverted:
            handler.setStream(stream)
        self._diverted = []


def _stream_handlers() -> Iterator[logging.StreamHandler[Any]]:
    loggers = [logging.getLogger(), *list(logging.root.manager.loggerDict.values())]
    handlers = {id(handler): handler for one in loggers for handler in getattr(one, "handlers", ())}
    return (handler for handler in handlers.values() if isinstance(handler, logging.StreamHandler))
