"""The kernels for NVIDIA GPUs on the GPU that is here: checked, then timed, then written down.

``correct`` compares every output and gradient with float64 and replays CUDA graphs, ``clock`` times
calls, ``gates`` has the rows of one CBAM and ``training`` those of a network, ``marks`` what they
are held to.
"""
