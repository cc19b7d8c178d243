"""`python -m ratchetctl`."""

from ratchetctl.main import main

main()
