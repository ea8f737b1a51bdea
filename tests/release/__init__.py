"""What is released: versions, addresses, and what an sdist has."""
