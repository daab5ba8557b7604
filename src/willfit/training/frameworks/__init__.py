"""What each training framework does where nothing is said, by version."""
