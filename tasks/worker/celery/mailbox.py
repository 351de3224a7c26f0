"""A worker's mailbox for remote control.

In Celery an exception while a broadcast is handled may end the worker, and otherwise replaces the mailbox. This mailbox checks
every broadcast (:mod:`tasks.worker.celery.arguments`). It logs one line about a wrong one, and answers with that line.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.pidbox import Node as KombuNode

from tasks.errors import InvalidRequest
from tasks.worker.celery.arguments import can_be_told, check, check_broadcast

logger = logging.getLogger(__name__)

MAX_CLOCK = 2**63


class Node(KombuNode):
    """The mailbox of one worker: ``app.control.mailbox.node_cls``."""

    def handle_message(self, body: Any, message: Any = None) -> Any:
        """Run the command of a broadcast, or answer with an error."""
        try:
            checked = check_broadcast(body)
        except InvalidRequest as error:
            return self._refuse(error, body)
        clock = message.headers.get("clock") if message is not None else None
        if isinstance(clock, int) and not isinstance(clock, bool) and 0 <= clock < MAX_CLOCK:
            self.adjust_clock(clock)
        return super().handle_message(checked)

    def handle(self, method: str, arguments: dict[str, Any] | None = None) -> Any:
        """Call a command, or return the fault in its arguments."""
        try:
            check(method, arguments or {}, self.handlers)
        except InvalidRequest as error:
            return self._refuse(error)
        return super().handle(method, arguments)

    def _refuse(self, error: InvalidRequest, body: Any = None) -> dict[str, str]:
        logger.error("a control command was refused: %s", error)
        answer = {"error": str(error)}
        if isinstance(body, dict) and can_be_told(body) and body.get("destination") in (None, [self.hostname]):
            to = body["reply_to"]
            self.reply({self.hostname: answer}, to["exchange"], to["routing_key"], body.get("ticket"))
        return answer
