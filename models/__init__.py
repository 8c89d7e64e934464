"""What is analysed: each model as a chain of sections, its data and its training."""
