"""Several worker processes that accept from the same listening sockets."""
