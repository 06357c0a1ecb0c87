"""The facts of a bundle as text and as HTML."""
