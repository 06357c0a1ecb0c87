"""Model families: one adapter each."""
