"""The playground: a web page on which a person likes and dislikes items and sees the service learn."""
