"""Whether two bases of the same activations, or of two models on the same inputs, have the same features."""
