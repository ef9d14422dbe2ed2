"""A page to play with: a run and the codec in one HTML file."""
