"""What an export raises if it can't, or if the file is not the network."""


class ExportError(ValueError):
    """The network can't be exported, or the file computes something else than the network."""
