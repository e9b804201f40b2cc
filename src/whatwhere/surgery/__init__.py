"""Find where gates can go in any network, put them there, and take them out."""

from whatwhere.surgery.attach import Report, attached, attend, detach, reattach
from whatwhere.surgery.fusion import fuse
from whatwhere.surgery.gated import AttachedGate
from whatwhere.surgery.sites import Site, Skipped, Survey, block_sites, named_sites

__all__ = [
    "AttachedGate",
    "Report",
    "Site",
    "Skipped",
    "Survey",
    "attached",
    "attend",
    "block_sites",
    "detach",
    "fuse",
    "named_sites",
    "reattach",
]
