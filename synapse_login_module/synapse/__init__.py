"""The part of the package that runs inside Synapse. No other part imports ``synapse``."""
