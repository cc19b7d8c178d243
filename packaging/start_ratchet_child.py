"""Where the built `ratchet-child` starts: the bootloader runs this file.

PyInstaller's own start-up is left out of the programs (see ratchet.spec). What they need of it is
the mark that they are built ones.
"""

import os
import sys

sys.frozen = True

from ratchet_child.main import main  # noqa: E402 - the mark comes first

# Nothing is buffered, and no thread is waited for; taking the interpreter down would take 40 ms.
os._exit(main())
