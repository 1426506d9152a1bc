"""Where it runs: the image, the manifests, and the checks of both."""
