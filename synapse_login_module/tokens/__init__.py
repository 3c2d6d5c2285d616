"""The form of tokens, and the rules for presented ones."""
