"""What every command of the program needs."""
