"""Sessions: one way to run a clip, whatever executes it."""
