"""Tests that run in a process of their own, where Triton's kernels are interpreted on the CPU."""
