"""How well real items are recommended: the test pictures of a data set as a catalogue, simulated users, and rivals."""
