"""A provider of Unix accounts, whose passwords PAM checks."""
