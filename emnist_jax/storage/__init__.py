"""What is written and read: files, paths, arrays, checkpoints, results."""
