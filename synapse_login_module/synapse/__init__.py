"""All that runs inside Synapse and knows it; nothing else imports ``synapse``."""
