"""Video that is still being sent: addresses, cameras and standard input."""
