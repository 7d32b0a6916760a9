"""Power control: single-antenna links."""
