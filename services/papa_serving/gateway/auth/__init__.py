"""Who calls: credentials, the keys that prove them, and the certificates of the connection."""
