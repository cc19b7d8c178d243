"""Where the built `ratchet` starts.

The bootloader runs this file. It does not use PyInstaller's own start-up, which costs more than all that
the plugin does (see ratchet.spec); what the plugin needs of it is the mark that it is a built program.
"""

import sys

sys.frozen = True

from ratchet.main import main  # noqa: E402

sys.exit(main())
