"""The board of a class as `rpi-image board` serves it, in this process."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imagebuilder.web.board import BoardServer
    from imagebuilder.web.local_server import LocalServer


@contextmanager
def serving(board: BoardServer) -> Iterator[LocalServer]:
    """Let a board answer in another thread."""
    server = board.open()
    worker = threading.Thread(target=server.serve_forever)
    worker.start()
    try:
        yield server
    finally:
        server.shutdown()
        worker.join()
