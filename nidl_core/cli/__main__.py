"""`python -m nidl_core.cli`: the command `nidl`."""

import sys

from nidl_core.cli import main

sys.exit(main())
