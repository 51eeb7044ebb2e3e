"""How fast feedback is taken in, against a server that does nothing."""
