"""Training of any model: optimiser, step, feed and the one loop."""
