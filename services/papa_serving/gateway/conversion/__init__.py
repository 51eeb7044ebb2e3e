"""Converts requests to the service's own types: validates, decodes, and refuses field by field."""
