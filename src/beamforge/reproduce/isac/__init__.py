"""Joint sensing and communication: sum rate and share of feasible instances, published and measured."""
