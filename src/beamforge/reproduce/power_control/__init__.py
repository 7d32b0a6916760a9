"""Power control: the published tables and figures beside ours."""
