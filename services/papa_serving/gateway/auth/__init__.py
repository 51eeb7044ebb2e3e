"""Authentication: credentials, the keys that verify them, and the certificates of the connection."""
