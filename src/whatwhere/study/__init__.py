"""Does attention help on this data, by how much, how sure, at what cost."""
