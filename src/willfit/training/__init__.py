"""What training a model takes: weights, gradients, optimizer states, activations and loss, instant by instant."""
