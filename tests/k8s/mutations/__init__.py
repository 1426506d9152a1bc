"""Ways of breaking the manifests, each with the rule that must see it."""
