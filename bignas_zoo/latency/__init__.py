"""Latency of a child on a device, from a table of its blocks: pure, without measuring anything.

`DeviceTable` is data with its protocol inside; `predict` adds up blocks, `adapt` turns a table into another
device's from a few whole networks, `find_device` knows the shipped tables and the user's own.
"""

from bignas_zoo.latency.adaptation import adapt
from bignas_zoo.latency.devices import find_device, list_devices
from bignas_zoo.latency.files import read_table, write_table
from bignas_zoo.latency.keys import BlockKey
from bignas_zoo.latency.measurement import Measurement
from bignas_zoo.latency.prediction import Estimate, predict
from bignas_zoo.latency.table import DeviceTable, Protocol
from bignas_zoo.latency.validation import Validation

__all__ = [
    "BlockKey",
    "DeviceTable",
    "Estimate",
    "Measurement",
    "Protocol",
    "Validation",
    "adapt",
    "find_device",
    "list_devices",
    "predict",
    "read_table",
    "write_table",
]
