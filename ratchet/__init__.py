"""The Ratchet CNI plugin: the short-lived parent that the runtime executes.

Kept empty but for the version: every pod on the node pays for what is imported here.
"""

__version__ = "0.2.0"
