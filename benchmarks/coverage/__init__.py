"""How often a study's intervals cover the truth, and its verdict claims what is false.

``python -m benchmarks.coverage`` draws the test accuracies of studies whose truth is known, judges
them by the functions that judge real ones, and counts.
"""
