"""Devices: the table, usable memory, MIG slices, and what this machine has.

Start with `find_device`, `parse_devices` and `all_devices` in `table`, `detect_devices` and `detect_host` in
`detect`; `Device` is in `device`.
"""
