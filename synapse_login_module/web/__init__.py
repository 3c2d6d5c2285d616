"""The resource tree: paths, JSON in and out, and the one error map."""
