"""Joint sensing and communication: sum rate and share of instances whose targets are met, as published and here."""
