"""Requests that are in no queue and with no worker."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tasks.broker.queues.ledger import RESENT_MAX

if TYPE_CHECKING:
    from tasks.broker.queues.ledger import Ledger
    from tasks.sweep.ends import Ends

logger = logging.getLogger(__name__)


class LostRequests:
    """Sends lost requests again, and ends those that are not to run.

    Args:
        ledger: finds them.
        ends: writes their ends.
    """

    def __init__(self, ledger: Ledger, ends: Ends) -> None:
        self._ledger = ledger
        self._ends = ends

    def look(self) -> None:
        """Look through a part of the ledger, and deal with requests that were missing in two looks.

        Raises:
            BrokerUnavailable: Redis cannot be reached or refuses for now.
        """
        for lost in self._ledger.lost():
            if lost.purged:
                self._ends.end_purged(lost)
                self._ledger.give_up(lost)
            elif self._ends.end_if_final(lost.task_id):
                self._ledger.give_up(lost)
            elif lost.resent >= RESENT_MAX:
                self._ends.give_up(lost.task_id)
                self._ledger.give_up(lost)
            elif self._ledger.resend(lost):
                logger.warning("sweep: request %s was in no queue and with no worker: sent again", lost.task_id)
