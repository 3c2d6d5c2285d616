"""HTTP: the site, the resource tree, JSON in and out, and the one map from errors to responses."""
