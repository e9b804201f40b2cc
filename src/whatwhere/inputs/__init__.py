"""Files as a network sees them: images, video and arrays, prepared as its checkpoint says."""

from whatwhere.inputs.preparation import InputError, Preparation, preparation_of
from whatwhere.inputs.read import Input, expand, read, read_one

__all__ = [
    "Input",
    "InputError",
    "Preparation",
    "expand",
    "preparation_of",
    "read",
    "read_one",
]
