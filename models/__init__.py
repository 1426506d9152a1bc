"""Models that the repository trains itself."""
