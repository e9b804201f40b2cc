"""Gates that do not earn their place are taken out; constant ones become part of a layer."""

from whatwhere.trim.candidates import Left
from whatwhere.trim.fold import Folded, Folding, fold
from whatwhere.trim.prune import Pruning, prune

__all__ = ["Folded", "Folding", "Left", "Pruning", "fold", "prune"]
