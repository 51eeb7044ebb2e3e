"""What `make stubs` generates from protos/: messages, services and their types. Never edited by hand."""
