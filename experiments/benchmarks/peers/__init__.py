"""The same autoencoders in each framework, every one in a process of its own."""
