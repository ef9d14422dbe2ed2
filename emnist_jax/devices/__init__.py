"""How many devices and processes there are; the only room that knows."""
