"""The search engine's own memory and rules. Free of ray and torch."""
