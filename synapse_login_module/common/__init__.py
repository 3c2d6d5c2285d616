"""Small parts that know nothing of logins: caches, files, threads, log lines, the console."""
