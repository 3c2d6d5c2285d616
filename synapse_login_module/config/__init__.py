"""From a YAML file to checked, frozen settings."""
