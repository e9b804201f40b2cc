"""Find where gates can go in any network, put them there, and take them out."""

from whatwhere.surgery.attach import attached, attend, detach, reattach
from whatwhere.surgery.fusion import fuse
from whatwhere.surgery.gated import AttachedGate
from whatwhere.surgery.groups import parameter_groups
from whatwhere.surgery.life import described
from whatwhere.surgery.places import Kind, Site, Skipped
from whatwhere.surgery.report import Report
from whatwhere.surgery.survey import WORDS, sites

__all__ = [
    "WORDS",
    "AttachedGate",
    "Kind",
    "Report",
    "Site",
    "Skipped",
    "attached",
    "attend",
    "described",
    "detach",
    "fuse",
    "parameter_groups",
    "reattach",
    "sites",
]
