"""Power control: published and reproduced tables and figures."""
