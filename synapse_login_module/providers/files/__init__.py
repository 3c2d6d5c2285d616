"""Accounts in a file: YAML, htpasswd and passwd."""
