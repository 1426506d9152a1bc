"""The ways to make the same pictures, each a program of its own that is started for one run."""
