"""Named faults against a real object store and real Ray clusters: ``python -m tests.chaos``."""
