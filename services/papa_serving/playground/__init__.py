"""A web page on which a person likes and dislikes, and sees the service learn; a caller like any other."""
