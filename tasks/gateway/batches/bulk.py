"""Files and batches of one gateway, put together from the settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.gateway.batches.batch_routes import BatchRoutes
from tasks.gateway.batches.batches import Batches
from tasks.gateway.batches.drive import BatchContext
from tasks.gateway.batches.drivers import Drivers
from tasks.gateway.batches.file_routes import FileRoutes
from tasks.gateway.batches.files import Files
from worker_config.data import data_folder
from worker_config.units import MIB

if TYPE_CHECKING:
    from celery import Celery

    from tasks.gateway.access.access import Access
    from tasks.gateway.records.store import Store
    from worker_config.settings import Settings


@dataclass(slots=True, frozen=True)
class Bulk:
    """The files and batches of one gateway: its routes, and the drivers behind them."""

    context: BatchContext
    drivers: Drivers
    settings: Settings

    def file_routes(self, access: Access) -> FileRoutes:
        """The handlers of ``/v1/files``."""
        return FileRoutes(self.context, access, self.settings.gateway_file_mib, self.settings.gateway_file_ttl_s)

    def batch_routes(self, access: Access) -> BatchRoutes:
        """The handlers of ``/v1/batches``."""
        return BatchRoutes(self.context, self.drivers, access, self.settings.gateway_file_ttl_s)


def make_bulk(app: Celery, store: Store, settings: Settings) -> Bulk:
    """Files and batches in the folder of the settings, whose requests go to this application."""
    folder = Path(settings.gateway_files).expanduser() if settings.gateway_files else data_folder() / "gateway"
    files = Files(folder / "files", settings.gateway_files_mib * MIB)
    context = BatchContext(app, files, Batches(folder / "batches", settings.gateway_file_ttl_s), store)
    return Bulk(context, Drivers(context, settings.gateway_batch_lease_s), settings)
