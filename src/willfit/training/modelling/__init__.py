"""From a layer of an architecture to the operations that a framework's model code runs."""
