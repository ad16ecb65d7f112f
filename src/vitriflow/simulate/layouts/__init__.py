"""Folders, names and metadata as three acquisition programs write them."""

from vitriflow.simulate.layouts.base import Layout
from vitriflow.simulate.layouts.epu import EpuLayout
from vitriflow.simulate.layouts.serialem import SerialEmLayout
from vitriflow.simulate.layouts.tomo5 import Tomo5Layout
from vitriflow.simulate.plan import LayoutName

LAYOUTS: dict[LayoutName, type[Layout]] = {
    LayoutName.EPU: EpuLayout,
    LayoutName.SERIALEM: SerialEmLayout,
    LayoutName.TOMO5: Tomo5Layout,
}

__all__ = ["LAYOUTS", "EpuLayout", "Layout", "SerialEmLayout", "Tomo5Layout"]
