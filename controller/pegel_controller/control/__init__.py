"""The pure controller core."""
