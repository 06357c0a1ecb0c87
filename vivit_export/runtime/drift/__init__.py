"""Drift from the reference: metrics, gates, runs of a session, pixel parity."""
