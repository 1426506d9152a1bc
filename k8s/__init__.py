"""Where it runs: the image and the manifests."""
