"""Methods for one channel at a time, in NumPy and LAPACK: no framework call, no batch, no gradients."""
