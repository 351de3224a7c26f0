"""A live view of the fleet: renewed every second, with keys that change the page."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.live import Live

from tasks.cli.overview import screen
from tasks.errors import GenerationError
from tasks.fleet.words import age

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console, RenderableType

    from tasks.broker.inventory.inventory import OpenRequest
    from tasks.cli.overview.keyboard import Keyboard
    from tasks.fleet.state import FleetState

REFRESH_S = 1.0
QUIT, REQUESTS, WORKERS = "q", "r", "w"
HINTS = {WORKERS: "q quit   r requests", REQUESTS: "q quit   w workers and queues"}


class LiveView:
    """The view that is shown now, and the changes that keys make.

    Args:
        console: where it is shown.
        read: looks at the fleet.
        read_requests: looks at the open requests; asked only while they are shown.
        refresh_s: how often both are looked at.
    """

    def __init__(
        self,
        console: Console,
        read: Callable[[], FleetState],
        read_requests: Callable[[], Sequence[OpenRequest]],
        refresh_s: float = REFRESH_S,
    ) -> None:
        self._console = console
        self._read = read
        self._read_requests = read_requests
        self._refresh_s = refresh_s
        self._page = WORKERS
        self._requests: Sequence[OpenRequest] = ()
        self.stale = ""

    def run(self, keyboard: Keyboard) -> None:
        """Show until the user types q or interrupts; Redis may come and go.

        Raises:
            BrokerUnavailable: Redis cannot be reached at the first look.
        """
        state, seen_at = self._read(), time.monotonic()
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(self._frame(state), refresh=True)
                key = keyboard.key(self._refresh_s)
                if key == QUIT:
                    return
                if key in HINTS:
                    self._page = key
                try:
                    state, seen_at, self.stale = self._read(), time.monotonic(), ""
                    self._requests = self._read_requests() if self._page == REQUESTS else ()
                except GenerationError as error:
                    self.stale = f"shown as of {age(time.monotonic() - seen_at)} ago: {error}"

    def _frame(self, state: FleetState) -> RenderableType:
        size = (self._console.width, self._console.height)
        hint = HINTS[self._page]
        if self._page == REQUESTS:
            return screen.request_list(state, self._requests, *size, stale=self.stale, hint=hint)
        return screen.overview(state, *size, stale=self.stale, hint=hint)
