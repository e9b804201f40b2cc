"""The kernels in Triton's language. A sample is a matrix of channels c and positions p.

Both layouts are one kernel: strides say where an element lies, and one of them is 1. Within a
sample addresses are 32-bit, from sample to sample 64-bit. Small tensors of a sample lie in rows, of
``row`` numbers each, at the places that the arguments ``*_at`` say. Nothing is added atomically: a
sum that crosses programs is written in parts, and another kernel adds those in their order.
"""
