"""One engine instance: claims requests, generates, records."""
