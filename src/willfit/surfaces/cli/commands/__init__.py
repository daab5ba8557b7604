"""The commands, one module each: what it is (`HELP`), its options (`declare`), what it prints (`run`)."""
