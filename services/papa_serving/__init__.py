"""The rooms of the service; what each may import is written in ARCHITECTURE.md and checked by the tests."""
