"""On which networks of other people ``attend`` works: measured, written to docs/reach.md."""
