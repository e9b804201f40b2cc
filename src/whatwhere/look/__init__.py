"""Looking at the gates of a network: recording them, measuring their state, drawing them.

``whatwhere.look.pictures`` draws and needs matplotlib, so it is imported by its own name.
"""

from whatwhere.look.diagnose import GateRecord, State, diagnose
from whatwhere.look.pointing import Hits, Truth
from whatwhere.look.record import gates_in, record

__all__ = [
    "GateRecord",
    "Hits",
    "State",
    "Truth",
    "diagnose",
    "gates_in",
    "record",
]
