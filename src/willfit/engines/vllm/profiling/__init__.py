"""What the profile run, captured graphs and the runtime take beside weights and cache."""
