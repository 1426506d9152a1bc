"""Checks of rendered manifests that need no cluster."""
