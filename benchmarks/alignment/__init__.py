"""How well, how soon and how cheaply each system learns a taste."""
