"""A process that appends what it is told: a batch of events a line, and says so once they are in the log.

`python writer.py PLACE`: a line is the ids of a batch with blanks between; the answer is the line.
"""

import sys

from incremental.log.place import open_log
from incremental.log.records import Event


def main() -> None:
    """Until its input ends."""
    log = open_log(sys.argv[1], create=True)
    print("ready", flush=True)
    for line in sys.stdin:
        log.append([Event(one, "u" + one, "i", time=1.0) for one in line.split()])
        print(line, end="", flush=True)


if __name__ == "__main__":
    main()
