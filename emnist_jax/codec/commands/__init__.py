"""What the commands of the codec do; `codec/__main__.py` has their arguments."""
