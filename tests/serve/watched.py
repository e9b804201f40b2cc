"""``whatwhere serve`` in a process that writes down whom it contacts and which files it writes.

python tests/serve/watched.py RECORD PATH [OPTIONS]
"""

import json
import os
import sys

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(record, event, arguments):
    if event == "socket.connect":
        told = ["contact", str(arguments[1])]
    elif event == "socket.getaddrinfo":
        told = ["name", str(arguments[0])]
    elif event == "socket.bind":
        told = ["bind", str(arguments[1])]
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        told = ["write", str(arguments[0])]
    elif event == "os.mkdir":
        told = [event, str(arguments[0])]
    else:
        return
    os.write(record, (json.dumps(told) + "\n").encode())


def main():
    record = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.addaudithook(lambda event, arguments: watch(record, event, arguments))
    sys.argv = ["whatwhere", "serve", *sys.argv[2:]]
    from whatwhere.cli import main as whatwhere

    whatwhere()


if __name__ == "__main__":
    main()
