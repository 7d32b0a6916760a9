"""Classical methods: closed forms, iterative methods, and bounds on the optimum."""
