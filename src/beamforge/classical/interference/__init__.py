"""Classical methods of the interference channel, where every user has a base station of its own."""
