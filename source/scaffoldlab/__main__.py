"""``python -m scaffoldlab``."""

import sys

from scaffoldlab.cli import main

sys.exit(main())
