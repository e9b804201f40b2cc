"""Which process this is, on which machine, for records and locks; and its end with another."""

import os
import socket
import threading
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


def end_with_input() -> None:
    """From here on, end this process when its standard input closes, as with who started it."""
    threading.Thread(target=_end_with_input, daemon=True).start()


def _end_with_input() -> None:
    os.read(0, 1)  # not sys.stdin's: at the end that would be busy, and Python could not end
    os._exit(1)
