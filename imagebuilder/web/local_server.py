"""Answer GET and HEAD on 127.0.0.1, by starlette and uvicorn: the extra `rpi-image[board]`."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING

from starlette.applications import Starlette  # noqa: TID251 - the only module that serves HTTP
from starlette.middleware import Middleware  # noqa: TID251 - as above
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: TID251 - as above
from starlette.responses import PlainTextResponse, Response  # noqa: TID251 - as above
from starlette.routing import Route  # noqa: TID251 - as above
from uvicorn import Config, Server  # noqa: TID251 - as above

from imagebuilder.errors import RpiImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.middleware.base import RequestResponseEndpoint  # noqa: TID251 - as above
    from starlette.requests import Request  # noqa: TID251 - as above

HOST = "127.0.0.1"
_MOST_CONNECTIONS = 100
_TYPES = {"js": "text/javascript", "css": "text/css"}  # not those of the system: they vary
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class LocalServer:
    """A server that listens from the beginning, and answers in `serve_forever` until `shutdown`."""

    def __init__(
        self, port: int, pages: Mapping[str, bytes], answers: Mapping[str, Callable[[], bytes]]
    ) -> None:
        self._socket = socket.create_server((HOST, port))
        self.port: int = self._socket.getsockname()[1]
        routes = [Route(path, partial(_page, path, data)) for path, data in pages.items()]
        routes += [Route(path, partial(_told, answer)) for path, answer in answers.items()]
        app = Starlette(
            routes=routes,
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=self._guard)],
            exception_handlers={RpiImageError: _failed},
        )
        app.router.redirect_slashes = False
        self._server = Server(
            Config(
                app, loop="asyncio", http="h11", ws="none", lifespan="off", proxy_headers=False,
                log_config=None, log_level="critical", access_log=False, server_header=False,
                limit_concurrency=_MOST_CONNECTIONS, timeout_graceful_shutdown=1,
            )
        )  # fmt: skip

    @property
    def url(self) -> str:
        """The address of its first page."""
        return f"http://{HOST}:{self.port}/"

    def serve_forever(self) -> None:
        """Answer until `shutdown` or a signal; that of Ctrl-C is then passed on."""
        self._server.run(sockets=[self._socket])

    def shutdown(self) -> None:
        """Let `serve_forever` end soon; it runs in another thread."""
        self._server.should_exit = True

    async def _guard(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Check the name of the host, so that no foreign page whose name leads here can read."""
        if request.headers.get("host") in {f"{HOST}:{self.port}", f"localhost:{self.port}"}:
            answer = await call_next(request)
        else:
            answer = Response(status_code=403)
        answer.headers.update(_HEADERS)
        return answer


def _page(path: str, data: bytes, _request: Request) -> Response:
    return Response(data, media_type=_TYPES.get(path.rpartition(".")[2], "text/html"))


def _told(answer: Callable[[], bytes], _request: Request) -> Response:
    return Response(answer(), media_type="application/json")


def _failed(_request: Request, error: Exception) -> Response:
    """Answer for a file that is being edited, for example."""
    message = error.message if isinstance(error, RpiImageError) else ""
    return PlainTextResponse(message, status_code=503)
