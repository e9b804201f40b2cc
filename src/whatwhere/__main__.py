"""``python -m whatwhere``: the command line."""

from whatwhere.cli import main

main()
