"""The networks of CBAM's tables, plain and with the attention of several papers, by name."""

from whatwhere.paper.names import attentions, build, network_names, recipe
from whatwhere.paper.networks import MobileNet, ResNet

__all__ = ["MobileNet", "ResNet", "attentions", "build", "network_names", "recipe"]
