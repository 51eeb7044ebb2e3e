"""The services of the public contract, one file each."""
