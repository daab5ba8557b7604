"""What people meet: the command line and its pictures."""
