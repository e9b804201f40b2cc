"""Faults tried on real ``whatwhere compare`` processes, and what became of the study each time.

``python -m benchmarks.faults`` tries them all and writes ``benchmarks/results/faults.json`` and the
table of ``docs/faults.md``. Linux, with ``taskset``, ``unshare``, ``nsenter`` and ``cc``; where one
is missing the faults that need it are left out, and listed so.
"""
