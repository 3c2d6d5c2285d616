"""The standalone server: a process under twistd."""
