"""The half of each family with torch."""
