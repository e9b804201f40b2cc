"""Find where gates can go in any network, put them there, and take them out."""

from whatwhere.surgery.attach import Report, attached, attend, detach, reattach
from whatwhere.surgery.fusion import fuse
from whatwhere.surgery.gated import AttachedGate
from whatwhere.surgery.groups import parameter_groups
from whatwhere.surgery.life import described
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
    "described",
    "detach",
    "fuse",
    "named_sites",
    "parameter_groups",
    "reattach",
]
