"""Time the engines of a bundle in turns, each in a process of its own."""
