"""Methods whose base stations decide alone: what each of them knows, and what they say to one another."""
