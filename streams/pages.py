"""The pages' web server: Faust's, with no pages but ours, and with limits on what whoever reaches it can hold of the worker.

Another door to faust beside `streams/frame.py`, and the one to aiohttp, which Faust serves by.
"""

from __future__ import annotations

from typing import Any, ClassVar

from aiohttp.web import AppRunner
from faust.web.drivers import aiohttp

MOST_CONNECTIONS = 64
IDLE_SECONDS = 30.0  # how long a connection may be open without a whole request


class PagesWeb(aiohttp.Web):
    """Faust's web server without Faust's own pages.

    A connection that asks nothing whole is closed after a while, and beyond the most there may be, the oldest one makes room:
    whoever opens many and says little keeps a few file handles of ours, and no probe out.
    """

    default_blueprints: ClassVar[Any] = []
    production_blueprints: ClassVar[Any] = []
    debug_blueprints: ClassVar[Any] = []
    optional_blueprints: ClassVar[Any] = []

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(app, **options)
        self._runner = AppRunner(self.web_app, access_log=None, keepalive_timeout=IDLE_SECONDS)

    async def start_server(self) -> None:
        """Start it."""
        await super().start_server()
        server = self._runner.server
        assert server is not None
        made = server.connection_made

        def made_room(handler: Any, transport: Any) -> None:
            made(handler, transport)
            for oldest in server.connections[:-MOST_CONNECTIONS]:
                oldest.force_close()

        server.connection_made = made_room  # type: ignore[method-assign]
