"""The process under twistd."""
