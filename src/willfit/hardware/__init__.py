"""The device table, usable memory, and detection of this machine."""
