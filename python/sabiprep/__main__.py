"""The command ``python -m sabiprep``: the same as ``sabiprep``."""

import sys

from sabiprep.cli import main

if __name__ == "__main__":
    sys.exit(main())
