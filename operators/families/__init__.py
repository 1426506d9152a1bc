"""Adapters: what a family of models needs to be run step by step. One file a family."""
