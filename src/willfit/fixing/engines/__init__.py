"""What may be edited in the commands of each program, and what it costs."""
