"""The sizes that papers print for their networks, beside those of ours: docs/tables.md."""
