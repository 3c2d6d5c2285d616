"""The homeserver that accepts this server's tokens: its accounts, its devices, its calls."""
