"""Where the built `ratchet-child` starts: the bootloader runs this file.

PyInstaller's own start-up is left out of the programs (see ratchet.spec). What they need of it is
the mark that they are built ones.
"""

import sys

sys.frozen = True

from ratchet_child.main import main  # noqa: E402 - the mark comes first

sys.exit(main())
