"""This machine as one frozen record: chip, cores, memory, accelerator, and where each value came from."""

from __future__ import annotations

from tasks.hardware.detection import detect
from tasks.hardware.record import Accelerator, Hardware

__all__ = ["Accelerator", "Hardware", "detect"]
