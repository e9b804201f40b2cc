"""Data in shards, read as it is needed from disks, servers and object stores."""
