"""What is on the device when the weights are loaded."""
