"""Keys of applications: made, kept as hashes, known in memory, limited in pace, and asked for by each route."""
