"""From what a caller sent to what the service works with: checked, decoded, refused field by field."""
