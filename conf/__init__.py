"""What was asked: Hydra config groups (YAML beside this file), the typed schema, the error tree."""
