"""Histories under faults: seeded schedules over real processes, and a checker of what they leave behind."""
