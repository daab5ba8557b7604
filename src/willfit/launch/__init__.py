"""Reading launch commands, one module per launcher."""
