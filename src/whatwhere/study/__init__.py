"""The study: train networks with and without gates, and report whether the gates help."""
