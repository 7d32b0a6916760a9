"""Classical methods: closed forms, iterations with a proof, and bounds."""
