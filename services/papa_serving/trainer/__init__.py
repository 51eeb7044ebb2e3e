"""The trainer room: reads feedback, updates adapters, writes revisions, commits them. Only actor and deployment know
Ray."""
