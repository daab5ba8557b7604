"""Writing launch commands and the files that go with them: the way back from settings."""
