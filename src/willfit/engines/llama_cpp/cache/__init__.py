"""What llama.cpp keeps of the sequences: keys and values, and states."""
