"""What many users cost, from measured figures and stated assumptions."""
