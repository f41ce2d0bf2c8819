"""``python -m probcl`` is ``probcl``."""

import sys

from probcl.cli import main

if __name__ == "__main__":
    sys.exit(main())
