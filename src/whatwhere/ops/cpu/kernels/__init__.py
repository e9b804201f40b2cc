"""The kernels in Numba: what is compiled once per machine, and not imported when that is cached."""
