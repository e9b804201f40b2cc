"""Which process this is, on which machine: for records and locks that several of them write."""

import os
import socket
from typing import Any

import torch


def this_process() -> dict[str, Any]:
    """Host, number, and number of the process that started it.

    >>> this_process()["pid"] == os.getpid()
    True
    """
    return {"host": socket.gethostname(), "pid": os.getpid(), "parent": os.getppid()}


def this_machine() -> dict[str, Any]:
    """This process, with what decides the rounding of its numbers: threads, and the GPU if any."""
    return {
        **this_process(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
