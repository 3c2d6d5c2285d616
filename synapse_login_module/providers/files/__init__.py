"""Providers of accounts in a file: YAML, htpasswd or passwd."""
