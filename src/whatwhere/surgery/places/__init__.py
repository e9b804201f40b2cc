"""Kinds of places for gates, each found from what a network does in one run (``trace``).

Nothing here looks at class names. A finder says which tensors (``Wanted``) are of its kind;
``placing`` says after, or before, which module a gate meets that tensor.
"""

from whatwhere.surgery.places.kinds import FINDERS
from whatwhere.surgery.places.placing import placed
from whatwhere.surgery.places.site import KINDS, Kind, Site, Skipped, Survey

__all__ = ["FINDERS", "KINDS", "Kind", "Site", "Skipped", "Survey", "placed"]
