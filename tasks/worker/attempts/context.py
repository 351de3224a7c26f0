"""The parts of a worker that all its runs share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.broker.channel.holding import Holding
    from tasks.server.clock import ServerClock
    from tasks.worker.attempts.accounts import Accounts
    from tasks.worker.attempts.claiming import Claiming
    from tasks.worker.attempts.claims import Claims
    from tasks.worker.attempts.exclusive import Exclusive
    from tasks.worker.attempts.job import Job
    from tasks.worker.engines.engines import Engines
    from tasks.worker.profile.profile import Profile


@dataclass(frozen=True, slots=True)
class RunContext:
    """The parts of a worker that a run needs, and no others.

    Args:
        profile: the worker's name, settings and machine.
        clock: Redis's clock, by which deadlines are meant.
        engines: the models in memory.
        claiming: claims requests.
        claims: which models' requests are claimed as they are fetched.
        exclusive: one thread at a time has a request.
        accounts: counts and logs.
        holding: the messages that the worker holds.
        in_engine: the jobs whose requests are in an engine, by task id.
    """

    profile: Profile
    clock: ServerClock
    engines: Engines
    claiming: Claiming
    claims: Claims
    exclusive: Exclusive
    accounts: Accounts
    holding: Holding
    in_engine: dict[str, Job]
