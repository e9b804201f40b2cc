"""The study: training with and without gates, and the answer whether they help."""
