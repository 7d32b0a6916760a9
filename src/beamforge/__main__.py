"""Runs the command line by ``python -m beamforge``."""

import sys

from beamforge.cli import main

sys.exit(main())
