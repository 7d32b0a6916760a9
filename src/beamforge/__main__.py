"""``python -m beamforge`` is the command line."""

import sys

from beamforge.cli import main

sys.exit(main())
