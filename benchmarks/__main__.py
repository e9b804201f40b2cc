"""``python -m benchmarks``: the same as ``whatwhere bench``."""

import sys

from whatwhere.cli import main

if __name__ == "__main__":  # measuring processes import this file too
    sys.argv.insert(1, "bench")
    main()
