"""Reading what training programs are asked to do: commands and config files."""
