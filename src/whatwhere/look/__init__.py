"""Looking at the gates of a network: recording them, measuring their worth, drawing them.

``whatwhere.look.pictures`` draws and needs matplotlib, so it is imported by its own name.
"""

from whatwhere.look.ablation import Score
from whatwhere.look.diagnose import diagnose
from whatwhere.look.pointing import Hits, Truth
from whatwhere.look.record import gates_in, record
from whatwhere.look.records import Advice, Cost, Diagnosis, GateRecord, State

__all__ = [
    "Advice",
    "Cost",
    "Diagnosis",
    "GateRecord",
    "Hits",
    "Score",
    "State",
    "Truth",
    "diagnose",
    "gates_in",
    "record",
]
