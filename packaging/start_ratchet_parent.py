"""Where the built `ratchet-parent` starts: the bootloader runs this file.

PyInstaller's own start-up is left out of the programs (see ratchet.spec). What they need of it is
the mark that they are built ones.
"""

import gc
import os
import sys

# The parent is gone, or has become another program, before there is anything to collect.
gc.disable()

sys.frozen = True

from ratchet.main import main  # noqa: E402 - the mark comes first

# Nothing is buffered; taking the interpreter down would take 2.5 ms.
os._exit(main())
