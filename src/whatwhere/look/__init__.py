"""Looking at the gates of a network: recording them, measuring their worth, drawing them.

``figure`` needs matplotlib, which is imported when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from whatwhere.look.ablation import Score
from whatwhere.look.cam import grad_cam
from whatwhere.look.diagnose import diagnose
from whatwhere.look.maps import GateMap, maps
from whatwhere.look.pointing import Hits, Truth
from whatwhere.look.record import gates_in, record
from whatwhere.look.records import Advice, Cost, Diagnosis, GateRecord, State

if TYPE_CHECKING:
    from whatwhere.look.pictures import figure

__all__ = [
    "Advice",
    "Cost",
    "Diagnosis",
    "GateMap",
    "GateRecord",
    "Hits",
    "Score",
    "State",
    "Truth",
    "diagnose",
    "figure",
    "gates_in",
    "grad_cam",
    "maps",
    "record",
]


def __getattr__(name: str) -> Any:
    if name == "figure":
        from whatwhere.look.pictures import figure

        return figure
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
